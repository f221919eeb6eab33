//! Names of clusters, and the server names that gateways keep for each other.

use super::name::{Name, NamePattern};

/// The domain of the gateways' own names, below one that nobody can register (RFC 9476 sets `internal` aside as private).
/// Nothing that is configured may cover a name in it.
pub const OWN_DOMAIN: &str = "strait.internal";

/// Most letters of a cluster's name: it is a DNS label (RFC 1035 §2.3.4).
pub const MAX_CLUSTER: usize = 63;

/// Whether a text can be a cluster's name: it is a DNS label (RFC 1123 §2.1) in the names of [`OWN_DOMAIN`], and a segment of the
/// path of a SPIFFE id (SPIFFE-ID §2.2), which takes every letter that a label has.
pub fn is_cluster_name(written: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=MAX_CLUSTER).contains(&written.len())
        && written.bytes().all(plain)
        && !written.starts_with('-')
        && !written.ends_with('-')
}

/// The name by which gateways ask the gateway of a cluster for what it exports.
pub fn exchange_name(cluster: &str) -> String {
    format!("exchange.{}.{OWN_DOMAIN}", cluster.to_ascii_lowercase())
}

/// Whether a name as it was written is one of the gateways' own.
pub fn is_own_name(written: &str) -> bool {
    let name = written.strip_suffix('.').unwrap_or(written).as_bytes();
    let Some((before, domain)) = name.split_at_checked(name.len().wrapping_sub(OWN_DOMAIN.len()))
    else {
        return false;
    };
    domain.eq_ignore_ascii_case(OWN_DOMAIN.as_bytes())
        && (before.is_empty() || before.ends_with(b"."))
}

/// Whether a pattern covers one of the gateways' own names.
pub fn covers_own_names(pattern: &NamePattern) -> bool {
    match pattern {
        NamePattern::Exact(name) => is_own_name(name.as_str()),
        NamePattern::Below(suffix) => is_own_name(suffix.as_str()) || is_above(suffix),
    }
}

/// Whether every one of the gateways' own names ends in this suffix.
fn is_above(suffix: &Name) -> bool {
    OWN_DOMAIN.strip_suffix(suffix.as_str()).is_some_and(|before| before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_by_one_label() {
        for name in ["west", "W1", "eu-west-1", &"a".repeat(63)] {
            assert!(is_cluster_name(name), "{name}");
            assert!(Name::parse(&exchange_name(name)).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "a.b", "a_b", "a/b", "ä", &"a".repeat(64), "."] {
            assert!(!is_cluster_name(name), "{name}");
        }
    }

    #[test]
    fn names_of_the_gateways_own_domain_are_known_in_every_spelling() {
        for name in ["strait.internal", "Exchange.East.Strait.INTERNAL.", "a.strait.internal"] {
            assert!(is_own_name(name), "{name}");
        }
        for name in
            ["internal", "xstrait.internal", "strait.internal.example", "", "strait.internal.."]
        {
            assert!(!is_own_name(name), "{name}");
        }
    }

    #[test]
    fn no_wildcard_around_the_domain_is_free() {
        let covers = |written| covers_own_names(&NamePattern::parse(written).unwrap());
        for covering in
            ["*.internal", "*.strait.internal", "*.east.strait.internal", "a.strait.internal"]
        {
            assert!(covers(covering), "{covering}");
        }
        for free in ["internal", "*.al", "*.nal", "*.example", "*.xstrait.internal", "a.internal"] {
            assert!(!covers(free), "{free}");
        }
    }
}
