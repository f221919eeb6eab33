//! Which wildcards cover a name that a `names` template can make.
//!
//! Such a wildcard would catch calls to apps that are not there (yet, or any more) and hand them to another app, without a
//! word: Dapr checks who it speaks to only in a connection's first handshake.

use crate::model::name::Name;

/// A template of the `names` setting, such as `{app}-dapr.{namespace}.svc.cluster.local`.
#[derive(Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    /// As it stands, in lower case.
    Text(Vec<u8>),
    /// A placeholder. `{app}` may hold dots, `{namespace}` may not.
    Placeholder { dots: bool },
}

impl Template {
    /// Reads a template that the configuration has checked. What looks wrong all the same stands for any text, so that
    /// doubt forbids.
    pub(super) fn parse(written: &str) -> Self {
        let mut parts = vec![];
        let mut rest = written.strip_suffix('.').unwrap_or(written);
        while let Some((text, after)) = rest.split_once('{') {
            let (placeholder, after) = after.split_once('}').unwrap_or((after, ""));
            parts.push(Part::text(text));
            parts.push(Part::Placeholder { dots: placeholder != "namespace" });
            rest = after;
        }
        parts.push(Part::text(rest));
        Self(parts)
    }

    /// Whether `*.suffix` covers one of the names that this template can make.
    pub(super) fn meets(&self, suffix: &Name) -> bool {
        let tail = [b".", suffix.as_str().as_bytes()].concat();
        ends_with(&self.0, &tail)
    }

    /// Whether this template can make exactly this name.
    pub(super) fn makes(&self, name: &Name) -> bool {
        is(&self.0, name.as_str().as_bytes())
    }
}

impl Part {
    fn text(written: &str) -> Self {
        Self::Text(written.to_ascii_lowercase().into_bytes())
    }
}

/// Whether some text that the parts can make ends in `tail` and has something in front of it. Goes from the right; a
/// placeholder takes one byte or more, so each step is tried with every length that it can take.
fn ends_with(parts: &[Part], tail: &[u8]) -> bool {
    let Some((last, before)) = parts.split_last() else { return false };
    match last {
        Part::Text(text) if text.len() <= tail.len() => {
            tail.strip_suffix(&**text).is_some_and(|tail| ends_with(before, tail))
        }
        Part::Text(text) => text.ends_with(tail),
        // A placeholder can always be longer than what is left to match.
        Part::Placeholder { dots } => {
            let taken = tail.iter().rev().take_while(|&&byte| *dots || byte != b'.').count();
            taken == tail.len()
                || (1..=taken).any(|taken| {
                    tail.get(..tail.len() - taken).is_some_and(|tail| ends_with(before, tail))
                })
        }
    }
}

/// Whether the parts can make exactly this text.
fn is(parts: &[Part], text: &[u8]) -> bool {
    let Some((last, before)) = parts.split_last() else { return text.is_empty() };
    match last {
        Part::Text(end) => text.strip_suffix(&**end).is_some_and(|text| is(before, text)),
        Part::Placeholder { dots } => {
            let taken = text.iter().rev().take_while(|&&byte| *dots || byte != b'.').count();
            (1..=taken)
                .any(|taken| text.get(..text.len() - taken).is_some_and(|text| is(before, text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meets(template: &str, suffix: &str) -> bool {
        Template::parse(template).meets(&Name::parse(suffix).unwrap())
    }

    #[test]
    fn a_wildcard_at_or_above_the_templates_own_suffix_covers_all_that_it_makes() {
        let template = "{app}.{namespace}.Mesh.example";
        assert!(meets(template, "mesh.example"));
        assert!(meets(template, "example"));
        assert!(meets("{app}.{namespace}.mesh.example.", "mesh.example"));
        assert!(!meets(template, "esh.example"));
        assert!(!meets(template, "other.example"));
        assert!(!meets(template, "xmesh.example"));
    }

    #[test]
    fn a_wildcard_below_it_covers_one_namespace_or_app_ids_with_dots() {
        assert!(meets("{app}.{namespace}.mesh.example", "shop.mesh.example"));
        assert!(meets("{app}.{namespace}.mesh.example", "v2.shop.mesh.example"));
        assert!(meets("{app}.mesh.example", "v2.mesh.example"));
        assert!(!meets("{namespace}.mesh.example", "shop.mesh.example"));
    }

    #[test]
    fn what_the_template_cannot_make_is_free() {
        let template = "{app}-dapr.{namespace}.svc.cluster.local";
        assert!(meets(template, "shop.svc.cluster.local"));
        assert!(!meets(template, "checkout.shop.svc.cluster.local"));
        assert!(meets(template, "v2-dapr.shop.svc.cluster.local"));
        assert!(!meets("east-{app}.mesh.example", "mesh.example.org"));
        assert!(meets("{namespace}-{app}.mesh.example", "mesh.example"));
    }

    #[test]
    fn a_name_is_made_or_is_free() {
        let makes = |template: &str, name: &str| {
            Template::parse(template).makes(&Name::parse(name).unwrap())
        };
        assert!(makes("{app}.{namespace}.Mesh.example", "orders.shop.mesh.example"));
        assert!(makes("{app}.{namespace}.mesh.example", "v2.orders.shop.mesh.example"));
        assert!(!makes("{app}.{namespace}.mesh.example", "zipkin.mesh.example"));
        assert!(!makes("{app}.{namespace}.mesh.example", "a.b.other.example"));
        assert!(makes("{app}.mesh.example", "zipkin.mesh.example"));
        assert!(makes("{app}-dapr.{namespace}.svc", "a-dapr.b.svc"));
        assert!(!makes("{app}-dapr.{namespace}.svc", "a.b.svc"));
    }

    #[test]
    fn agrees_with_every_name_of_a_small_world() {
        let words = ["a", "b", "a.b", "b.a", "a."];
        let template = "{app}-x.{namespace}.b";
        let made: Vec<String> = words
            .iter()
            .flat_map(|app| ["a", "b"].map(|namespace| format!("{app}-x.{namespace}.b")))
            .collect();
        for suffix in ["b", "a.b", "b.b", "b-x.a.b", "a-x.b.b", "x.a.b", "-x.a.b", "a", "a.a.b"] {
            let covered = made.iter().any(|name| name.ends_with(&format!(".{suffix}")));
            assert_eq!(meets(template, suffix), covered, "*.{suffix}");
        }
    }
}
