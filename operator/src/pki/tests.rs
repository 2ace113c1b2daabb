//! The plan of certificates against a simulated cluster whose members read Secrets late.

use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::objects::testing::{cluster, settings};

/// Kubernetes, as far as it matters here, and members that each see Secrets as they were.
struct World {
    cluster: QuorateCluster,
    settings: Settings,
    timing: Timing,
    now: Timestamp,
    secrets: BTreeMap<String, Held>,
    seen: [BTreeMap<String, Held>; 3],
}

impl World {
    fn new(timing: Timing) -> Self {
        Self {
            cluster: cluster(),
            settings: settings(),
            timing,
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
            secrets: BTreeMap::new(),
            seen: Default::default(),
        }
    }

    fn plan(&self) -> CertificatePlan {
        plan(
            self.now,
            &self.cluster,
            &self.settings,
            &self.timing,
            &self.secrets,
        )
        .expect("certificates can be made")
    }

    fn apply(&mut self, writes: &[Secret]) {
        for secret in writes {
            let name = secret.metadata.name.clone().expect("a name");
            self.secrets.insert(name, Held::from(secret));
        }
    }

    /// Everything that is to be done is done, and then nothing is left to do.
    fn settle(&mut self) -> CertificatePlan {
        let plan = self.plan();
        self.apply(&plan.writes);
        let again = self.plan();
        assert!(again.writes.is_empty(), "{:?}", names_of(&again));
        plan
    }

    /// Time passes; one of the members looks at its files again, in turn.
    fn pass(&mut self, step: SignedDuration, turn: usize) {
        self.now += step;
        self.seen[turn % 3] = self.secrets.clone();
    }

    fn see_all(&mut self) {
        self.seen = std::array::from_fn(|_| self.secrets.clone());
    }

    /// Each member believes each other, on every side.
    fn everybody_believes_everybody(&self) {
        for shows in &self.seen {
            for judges in &self.seen {
                for (shown, judged_by) in [
                    ("demo-peer-tls", "demo-peer-tls"),
                    ("demo-server-tls", "demo-client-tls"),
                    ("demo-client-tls", "demo-server-tls"),
                    ("demo-sidecar-tls", "demo-operator-tls"),
                    ("demo-operator-tls", "demo-sidecar-tls"),
                ] {
                    let bundle = judges[judged_by].get("ca.crt");
                    let leaf = authority::judged(&shows[shown], bundle, self.now);
                    assert!(leaf.is_some(), "{}: {shown} by {judged_by}", self.now);
                }
            }
        }
    }

    fn authorities(&self) -> usize {
        let bundle = self.secrets["demo-peer-tls"].get("ca.crt");
        quorate_tls::certificates(bundle).expect("a bundle").len()
    }

    fn ask(&mut self, value: &str) {
        let annotations = self.cluster.metadata.annotations.get_or_insert_default();
        annotations.insert(ROTATE_ANNOTATION.to_owned(), value.to_owned());
    }
}

fn names_of(plan: &CertificatePlan) -> Vec<&str> {
    plan.writes
        .iter()
        .filter_map(|secret| secret.metadata.name.as_deref())
        .collect()
}

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

#[test]
fn a_new_cluster_gets_an_authority_and_five_certificates() {
    let mut world = World::new(Timing::default());
    let plan = world.settle();
    assert_eq!(
        names_of(&plan),
        [
            "demo-ca",
            "demo-server-tls",
            "demo-client-tls",
            "demo-peer-tls",
            "demo-sidecar-tls",
            "demo-operator-tls"
        ]
    );
    assert_eq!(secrets(&world.cluster, &world.settings).len(), 6);
    assert!(plan.missing.is_empty() && plan.certificates.is_empty() && !plan.rotating);
    let owner = plan.writes[0]
        .metadata
        .owner_references
        .as_ref()
        .expect("an owner");
    assert_eq!(owner[0].kind, "QuorateCluster");
    world.see_all();
    world.everybody_believes_everybody();
    let server = authority::judged(
        &world.secrets["demo-server-tls"],
        world.secrets["demo-ca"].get("ca.crt"),
        world.now,
    );
    let server = server.expect("it is good");
    for name in [
        "demo-abcdef.demo-peer.team.svc",
        "demo-abcdef.demo-peer.team.svc.cluster.local",
        "demo-client.team.svc",
        "localhost",
        "127.0.0.1",
        "::1",
    ] {
        assert!(server.is_valid_for(name), "{name}");
    }
    let client = &world.secrets["demo-client-tls"];
    let client = authority::judged(client, client.get("ca.crt"), world.now).expect("it is good");
    assert!(
        !client.is_valid_for("member.demo-peer.team.svc"),
        "a client is no peer"
    );
    assert!(client.may_call && !client.may_serve);
}

#[test]
fn certificates_are_renewed_before_they_end() {
    let mut world = World::new(Timing::default());
    let plan = world.settle();
    let end = world.now + DAY * 90;
    assert_eq!(plan.expires["demo-peer-tls"], end);
    assert_eq!(plan.look_again, Some(end - DAY * 30));
    world.now = end - DAY * 30 - MINUTE;
    assert!(world.plan().writes.is_empty());
    world.now += MINUTE;
    let plan = world.settle();
    assert_eq!(plan.writes.len(), 5, "{:?}", names_of(&plan));
    assert_eq!(plan.expires["demo-peer-tls"], world.now + DAY * 90);
}

#[test]
fn what_is_changed_is_issued_again_and_what_is_broken_is_mended() {
    let mut world = World::new(Timing::default());
    world.settle();
    let more = ["quorate.example.org", "2001:DB8::1", "ünl"].map(str::to_owned);
    world.cluster.spec.service.additional_sans = more.to_vec();
    let plan = world.settle();
    assert_eq!(names_of(&plan), ["demo-server-tls"]);
    assert_eq!(plan.missing.len(), 1);
    let server = &world.secrets["demo-server-tls"];
    let server = authority::judged(server, server.get("ca.crt"), world.now).expect("it is good");
    assert!(server.is_valid_for("2001:db8::1") && server.is_valid_for("quorate.example.org"));

    world.secrets.remove("demo-client-tls");
    let peer = world.secrets.get_mut("demo-peer-tls").expect("it is there");
    peer.data.insert("tls.key".to_owned(), b"nothing".to_vec());
    let sidecar = world
        .secrets
        .get_mut("demo-sidecar-tls")
        .expect("it is there");
    sidecar.data.insert("more".to_owned(), Vec::new());
    let plan = world.settle();
    assert_eq!(
        names_of(&plan),
        ["demo-client-tls", "demo-peer-tls", "demo-sidecar-tls"]
    );
}

/// Each step a member reads its files, so that each is up to three steps late; a plan is carried
/// out in parts when the operator dies in between.
fn rotate(world: &mut World, step: SignedDuration, turns: usize, dies_at: usize) -> usize {
    let mut most = 1;
    for turn in 0..turns {
        let plan = world.plan();
        let done = if turn == dies_at {
            plan.writes.len() / 2
        } else {
            plan.writes.len()
        };
        world.apply(&plan.writes[..done]);
        world.everybody_believes_everybody();
        world.pass(step, turn);
        world.everybody_believes_everybody();
        most = most.max(world.authorities());
    }
    most
}

#[test]
fn an_authority_is_rotated_and_at_every_moment_everybody_believes_everybody() {
    for dies_at in [usize::MAX, 0, 5, 6, 70] {
        let mut world = World::new(Timing::default());
        world.settle();
        world.see_all();
        let before = world.secrets["demo-ca"].get("tls.crt").to_vec();
        world.ask("1");
        let most = rotate(&mut world, MINUTE, 75, dies_at);
        assert_eq!((most, world.authorities()), (2, 1), "dies at {dies_at}");
        assert_ne!(world.secrets["demo-ca"].get("tls.crt"), before);
        let authority = world.secrets["demo-ca"].get("tls.crt").to_vec();
        for leaf in [
            "demo-server-tls",
            "demo-client-tls",
            "demo-peer-tls",
            "demo-sidecar-tls",
        ] {
            let leaf = &world.secrets[leaf];
            assert!(authority::judged(leaf, &authority, world.now).is_some());
        }
        assert!(!world.secrets["demo-ca"].data.contains_key("old.key"));
        assert!(
            world.plan().writes.is_empty(),
            "once for each value of the annotation"
        );
    }
}

#[test]
fn leaves_stay_with_the_old_authority_until_the_new_one_is_known() {
    let mut world = World::new(Timing::default());
    world.settle();
    let before = world.secrets["demo-peer-tls"].get("tls.crt").to_vec();
    world.ask("1");
    let plan = world.settle();
    assert!(plan.rotating);
    assert_eq!(world.secrets["demo-peer-tls"].get("tls.crt"), before);
    let due = world.now + MINUTE * 5;
    assert_eq!(
        (plan.look_again, world.plan().look_again),
        (Some(due), Some(due))
    );

    // One that is needed meanwhile is of the authority that everybody trusts already.
    world.secrets.remove("demo-peer-tls");
    world.settle();
    let old = world.secrets["demo-ca"].get("old.crt").to_vec();
    let leaf = authority::judged(&world.secrets["demo-peer-tls"], &old, world.now);
    assert!(leaf.is_some());

    world.now = due;
    world.settle();
    let new = world.secrets["demo-ca"].get("tls.crt").to_vec();
    let leaf = authority::judged(&world.secrets["demo-peer-tls"], &new, world.now);
    assert!(leaf.is_some());
}

#[test]
fn a_lost_authority_is_replaced_without_losing_trust() {
    let mut world = World::new(Timing::default());
    world.settle();
    world.see_all();
    world.secrets.remove("demo-ca");
    assert_eq!(rotate(&mut world, MINUTE, 75, usize::MAX), 2);
    assert_eq!(world.authorities(), 1);
}

#[test]
fn in_twenty_years_authorities_and_leaves_never_end_unrenewed() {
    let days = |days: i64| days * 24 * 3_600;
    let mut world = World::new(Timing {
        propagation_seconds: days(30),
        retirement_seconds: days(60),
    });
    let source = json!({ "operatorCA": { "validityHours": 26_280, "renewBeforeHours": 4_380 } });
    world.cluster.spec.tls.client = serde_json::from_value(source.clone()).expect("a source");
    world.cluster.spec.tls.peer = serde_json::from_value(source).expect("a source");
    world.settle();
    world.see_all();
    let first = world.secrets["demo-ca"].get("tls.crt").to_vec();
    assert_eq!(rotate(&mut world, DAY * 10, 730, usize::MAX), 2);
    assert_ne!(world.secrets["demo-ca"].get("tls.crt"), first);
}

#[test]
fn given_secrets_are_judged_with_what_would_be_right() {
    let mut world = World::new(Timing::default());
    world.settle();
    let given = json!({ "secretName": "mine" });
    world.cluster.spec.tls.peer = serde_json::from_value(given).expect("a source");
    let words = |world: &World| {
        let plan = world.plan();
        let all: Vec<String> = plan
            .missing
            .iter()
            .map(|wrong| wrong.message.clone())
            .collect();
        all.join("\n")
    };
    assert!(words(&world).contains("tls.crt, tls.key and ca.crt"));
    let peer = world.secrets["demo-peer-tls"].clone();
    world.secrets.insert("mine".to_owned(), peer.clone());
    assert_eq!(words(&world), "");
    assert!(world.plan().expires.contains_key("mine"));

    world
        .secrets
        .insert("mine".to_owned(), world.secrets["demo-server-tls"].clone());
    assert!(words(&world).contains("clientAuth"), "{}", words(&world));
    let mut other = peer.clone();
    other.data.insert(
        "tls.key".to_owned(),
        world.secrets["demo-server-tls"].get("tls.key").to_vec(),
    );
    world.secrets.insert("mine".to_owned(), other);
    assert!(
        words(&world).contains("does not match"),
        "{}",
        words(&world)
    );
    let mut other = peer.clone();
    other.data.remove("ca.crt");
    world.secrets.insert("mine".to_owned(), other);
    assert!(words(&world).contains("no ca.crt"));
    world.secrets.insert("mine".to_owned(), peer);
    world.cluster.metadata.name = Some("another".to_owned());
    assert!(words(&world).contains("not valid for member.another-peer.team.svc"));
    world.cluster.metadata.name = Some("demo".to_owned());
    world.now += DAY * 91;
    assert!(words(&world).contains("xpired"), "{}", words(&world));
}

#[test]
fn cert_manager_is_asked_and_its_secrets_are_consumed() {
    let mut world = World::new(Timing::default());
    let source = json!({ "certManager": { "issuerRef": { "name": "ours" }, "durationHours": 48 } });
    world.cluster.spec.tls.client = serde_json::from_value(source).expect("a source");
    let plan = world.settle();
    let names: Vec<_> = plan
        .certificates
        .iter()
        .filter_map(|all| all.metadata.name.clone())
        .collect();
    assert_eq!(names, ["demo-server-tls", "demo-client-tls"]);
    let spec = &plan.certificates[0].data["spec"];
    assert_eq!(spec["issuerRef"]["kind"], "Issuer");
    assert_eq!(spec["duration"], "48h");
    assert_eq!(spec["usages"], json!(["digital signature", "server auth"]));
    assert_eq!(spec["ipAddresses"], json!(["127.0.0.1", "::1"]));
    assert_eq!(plan.certificates[1].data["spec"].get("dnsNames"), None);
    assert_eq!(plan.missing.len(), 2);
    assert!(
        plan.missing[0]
            .message
            .contains("cert-manager has not issued")
    );
    let own = names_of(&plan);
    assert!(!own.contains(&"demo-server-tls") && own.contains(&"demo-peer-tls"));
}

#[test]
fn without_tls_only_the_sidecars_api_has_certificates() {
    let mut world = World::new(Timing::default());
    world.cluster.spec.tls.client.disabled = Some(true);
    world.cluster.spec.tls.peer.disabled = Some(true);
    let plan = world.settle();
    assert_eq!(
        names_of(&plan),
        ["demo-ca", "demo-sidecar-tls", "demo-operator-tls"]
    );
}
