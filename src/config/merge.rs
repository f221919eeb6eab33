//! One configuration from several files: lists are joined, maps merged, one setting in two files is an error.

use std::collections::HashMap;

use super::problem::{Problems, Wrong};
use super::tree::{Entry, NodeId, Tree, Value};

/// Maps within maps that are merged; settings stand no deeper. Aliases of aliases could go on for thousands.
const MAX_DEPTH: usize = 8;

/// Joins the files' values from the first to the last.
pub(super) fn merge(
    tree: &mut Tree,
    roots: Vec<NodeId>,
    problems: &mut Problems,
) -> Option<NodeId> {
    let mut merging = Merging { tree, problems };
    roots.into_iter().reduce(|left, right| merging.merged(left, right, 0))
}

struct Merging<'a> {
    tree: &'a mut Tree,
    problems: &'a mut Problems,
}

impl Merging<'_> {
    /// Makes a new node where both sides count: the old ones may stand elsewhere too, by an alias.
    fn merged(&mut self, left: NodeId, right: NodeId, depth: usize) -> NodeId {
        match (self.tree.value(left).clone(), self.tree.value(right).clone()) {
            (_, Value::Null) => left,
            (Value::Null, _) => right,
            (Value::List(mut items), Value::List(more)) => {
                items.extend(more);
                self.tree.add(left, Value::List(items))
            }
            (Value::Map(entries), Value::Map(more)) if depth < MAX_DEPTH => {
                let entries = self.merged_entries(entries, more, depth + 1);
                self.tree.add(left, Value::Map(entries))
            }
            (
                Value::Scalar(_) | Value::List(_) | Value::Map(_),
                Value::Scalar(_) | Value::List(_) | Value::Map(_),
            ) => {
                self.twice(left, right);
                left
            }
        }
    }

    fn merged_entries(
        &mut self,
        mut entries: Vec<Entry>,
        more: Vec<Entry>,
        depth: usize,
    ) -> Vec<Entry> {
        let known: HashMap<Box<str>, usize> =
            entries.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
        for entry in more {
            match known.get(&entry.key).and_then(|&index| entries.get_mut(index)) {
                Some(here) => here.value = self.merged(here.value, entry.value, depth),
                None => entries.push(entry),
            }
        }
        entries
    }

    fn twice(&mut self, left: NodeId, right: NodeId) {
        let tree = &*self.tree;
        self.problems.error(|| {
            let message =
                format!("this setting stands in two files, also at {}", tree.origin(left));
            let fix = "leave it in one of them; only lists and maps may be spread over files";
            tree.problem(right, Wrong::new(message, fix))
        });
    }
}
