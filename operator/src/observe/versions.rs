//! Which change of version may be made.

use crate::model::Refusal;

fn parse(version: &str) -> Option<(u64, u64, u64)> {
    let mut parts = version.split('.').map(str::parse::<u64>);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Some((major, minor, patch)),
        _ => None,
    }
}

/// Why members that run `running` may not be given `target`; None: they may. Patches may change
/// both ways; the minor version goes up by one at a time and never down, because a newer minor
/// may write what an older one cannot read.
#[must_use]
pub fn path_refusal(running: &str, target: &str) -> Option<Refusal> {
    let refuse = |message: String| {
        Some(Refusal {
            reason: "UnsupportedVersionPath".to_owned(),
            message,
        })
    };
    let (Some(from), Some(to)) = (parse(running), parse(target)) else {
        return refuse(format!(
            "version {target:?} cannot be compared with the running {running:?}: both must be \
             three numbers with dots"
        ));
    };
    if (to.0, to.1) == (from.0, from.1) {
        return None;
    }
    if (to.0, to.1) < (from.0, from.1) {
        return refuse(format!(
            "members run {running} and cannot go back to {target}: set version to {running} or \
             newer, or begin a new cluster from a backup"
        ));
    }
    if to.0 == from.0 && to.1 == from.1 + 1 {
        return None;
    }
    refuse(format!(
        "members run {running} and cannot skip to {target}: set version to {}.{}.x first",
        from.0,
        from.1 + 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_at_a_time_and_never_back() {
        assert_eq!(path_refusal("0.1.0", "0.1.7"), None);
        assert_eq!(path_refusal("0.1.7", "0.1.0"), None);
        assert_eq!(path_refusal("0.1.7", "0.2.0"), None);
        for (from, to) in [
            ("0.1.0", "0.3.0"),
            ("0.2.0", "0.1.9"),
            ("0.9.0", "2.0.0"),
            ("x", "1.0.0"),
        ] {
            let refusal = path_refusal(from, to).expect("it is refused");
            assert_eq!(refusal.reason, "UnsupportedVersionPath");
        }
    }
}
