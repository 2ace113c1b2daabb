//! A scheduler as simple as can be: taints, selectors, affinity that is required, volumes.

use super::Shared;
use super::claims::Binding;
use anyhow::Result;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

type Labels = BTreeMap<String, String>;

/// Binds every Pod that waits, or says why it cannot be bound.
pub(super) async fn pass(shared: &Shared) -> Result<()> {
    let mut pods = shared.pods.state();
    // Whose volumes are on their way comes first, since its node is chosen already.
    let turn = shared.placing.lock().clone();
    pods.sort_by_key(|pod| {
        let meta = &pod.metadata;
        let since = meta.creation_timestamp.clone().map(|time| time.0);
        (meta.uid != turn, since, meta.name.clone())
    });
    let waits = |pod: &&Arc<Pod>| {
        let spec = pod.spec.as_ref();
        let gates = spec.and_then(|spec| spec.scheduling_gates.as_ref());
        spec.is_some_and(|spec| spec.node_name.is_none())
            && gates.is_none_or(Vec::is_empty)
            && pod.metadata.deletion_timestamp.is_none()
    };
    // One a pass, so that the next one sees where it went.
    for pod in pods.iter().filter(waits) {
        if place(shared, pod, &pods).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether the next one must wait for the next pass.
async fn place(shared: &Shared, pod: &Pod, pods: &[Arc<Pod>]) -> Result<bool> {
    let place = super::Place::of(pod);
    let mut nodes: Vec<Arc<Node>> = shared.nodes.state();
    let all = nodes.clone();
    let others = Others { pods, nodes: &all };
    nodes.retain(|node| fits(node, pod, &others));
    nodes.retain(|node| volumes_fit(shared, node, pod));
    let load = |node: &Arc<Node>| {
        let name = node.metadata.name.clone();
        let here = pods
            .iter()
            .filter(|other| node_name(other) == name.as_deref());
        // Its own kind counts most, so that members spread.
        let namesakes = here.clone().filter(|other| same_kind(other, pod)).count();
        (namesakes, here.count(), name)
    };
    nodes.sort_by_key(load);
    let Some(node) = nodes.first().and_then(|node| node.metadata.name.clone()) else {
        let text = format!("0/{} nodes are available for it", all.len());
        unschedulable(shared, pod, &text).await?;
        return Ok(false);
    };
    match super::claims::bind(shared, pod, &node).await? {
        Binding::Bound => {}
        // Its place is taken, so nobody else is placed before it.
        Binding::Waits => {
            *shared.placing.lock() = pod.metadata.uid.clone();
            return Ok(true);
        }
        Binding::Missing => return Ok(false),
    }
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": place.name, "uid": pod.metadata.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &place.namespace);
    let params = PostParams::default();
    let bound = api
        .create_subresource::<Value, Value>("binding", &place.name, &params, &binding)
        .await;
    match bound {
        Ok(_) => Ok(true),
        // The store has not seen yet that it was bound: nobody else before it has.
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(true),
        // Deleted, or its namespace is.
        Err(kube::Error::Api(error)) if [403, 404].contains(&error.code) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn unschedulable(shared: &Shared, pod: &Pod, text: &str) -> Result<()> {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let is_told = |kind: &str| kind == "PodScheduled";
    if conditions
        .into_iter()
        .flatten()
        .any(|known| is_told(&known.type_))
    {
        return Ok(());
    }
    let place = super::Place::of(pod);
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &place.namespace);
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [{
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": text,
        "lastTransitionTime": jiff::Timestamp::now(),
    }]}});
    let patched = api
        .patch_status(
            &place.name,
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Strategic(patch),
        )
        .await;
    match patched {
        Err(kube::Error::Api(error)) if [403, 404, 409].contains(&error.code) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn labels(pod: &Pod) -> Labels {
    pod.metadata.labels.clone().unwrap_or_default()
}

fn same_kind(one: &Pod, other: &Pod) -> bool {
    let key = "app.kubernetes.io/instance";
    let of = |pod: &Pod| labels(pod).get(key).cloned();
    one.metadata.namespace == other.metadata.namespace && of(one) == of(other)
}

/// Who is where already.
struct Others<'a> {
    pods: &'a [Arc<Pod>],
    nodes: &'a [Arc<Node>],
}

fn fits(node: &Node, pod: &Pod, others: &Others<'_>) -> bool {
    let node_labels = node.metadata.labels.clone().unwrap_or_default();
    let Some(spec) = &pod.spec else {
        return false;
    };
    let node_spec = node.spec.clone().unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let hard = |taint: &&Taint| taint.effect != "PreferNoSchedule";
    let taints = node_spec.taints.unwrap_or_default();
    let is_tolerated = taints.iter().filter(hard).all(|taint| {
        tolerations
            .iter()
            .any(|toleration| tolerates(toleration, taint))
    });
    let selector = spec.node_selector.clone().unwrap_or_default();
    let is_selected = selector
        .iter()
        .all(|(key, value)| node_labels.get(key) == Some(value));
    let affinity = spec.affinity.clone().unwrap_or_default();
    let wanted = affinity
        .node_affinity
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution);
    let is_wanted = wanted.is_none_or(|wanted| {
        wanted
            .node_selector_terms
            .iter()
            .any(|term| term_fits(term, &node_labels))
    });
    let shunned = affinity
        .pod_anti_affinity
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution)
        .unwrap_or_default();
    let is_shunned = shunned
        .iter()
        .any(|term| meets(term, pod, &node_labels, others));
    let is_open = node_spec.unschedulable != Some(true);
    is_tolerated && is_selected && is_wanted && !is_shunned && is_open
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_key = toleration.key.as_ref().is_none_or(|key| *key == taint.key);
    let is_effect = toleration
        .effect
        .as_ref()
        .is_none_or(|effect| *effect == taint.effect);
    let is_value = toleration.operator.as_deref() == Some("Exists")
        || toleration.value.as_deref().unwrap_or_default()
            == taint.value.as_deref().unwrap_or_default();
    is_key && is_effect && is_value
}

pub(super) fn term_fits(term: &NodeSelectorTerm, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    expressions
        .iter()
        .all(|requirement| requirement_fits(requirement, labels))
}

fn requirement_fits(requirement: &NodeSelectorRequirement, labels: &Labels) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    one_fits(&requirement.key, &requirement.operator, values, labels)
}

fn one_fits(key: &str, operator: &str, values: &[String], labels: &Labels) -> bool {
    let value = labels.get(key);
    match operator {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let pairs = selector.match_labels.clone().unwrap_or_default();
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    pairs
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && expressions.iter().all(|one| {
            let values = one.values.as_deref().unwrap_or_default();
            one_fits(&one.key, &one.operator, values, labels)
        })
}

/// Whether a Pod that the term selects is on a node of the same domain.
fn meets(term: &PodAffinityTerm, pod: &Pod, node: &Labels, others: &Others<'_>) -> bool {
    let (Some(selector), Some(domain)) = (&term.label_selector, node.get(&term.topology_key))
    else {
        return false;
    };
    let of = |other: &Pod| {
        let name = node_name(other)?;
        let mut nodes = others.nodes.iter();
        let found = nodes.find(|node| node.metadata.name.as_deref() == Some(name))?;
        found
            .metadata
            .labels
            .as_ref()?
            .get(&term.topology_key)
            .cloned()
    };
    others.pods.iter().any(|other| {
        other.metadata.namespace == pod.metadata.namespace
            && other.metadata.uid != pod.metadata.uid
            && selects(selector, &labels(other))
            && of(other).as_ref() == Some(domain)
    })
}

fn volumes_fit(shared: &Shared, node: &Node, pod: &Pod) -> bool {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    super::claims::volumes_of(shared, pod).iter().all(|volume| {
        let spec = volume.spec.as_ref();
        let affinity = spec.and_then(|spec| spec.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| affinity.required.as_ref());
        required.is_none_or(|required| {
            let mut terms = required.node_selector_terms.iter();
            terms.any(|term| term_fits(term, &labels))
        })
    })
}
