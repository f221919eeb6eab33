//! YAML as a tree of nodes that know where they stand, so that every later step can say where a mistake is.
//!
//! One tree holds all files of a directory, so that a mistake between two files can name both.

use std::path::Path;
use std::sync::Arc;

use serde_saphyr::granit_parser::Span;

use crate::model::snapshot::Origin;

use super::problem::{Problem, Problems, Wrong};
use super::yaml;

/// A node of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(pub(super) u32);

/// All nodes of all files.
#[derive(Debug, Default)]
pub(super) struct Tree {
    sources: Vec<Source>,
    nodes: Vec<Node>,
    parents: Vec<Option<NodeId>>,
}

/// A file and its text.
#[derive(Debug)]
struct Source {
    file: Arc<Path>,
    text: String,
}

/// Where something stands: a source and bytes in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    source: u32,
    start: u32,
    end: u32,
    pub(super) line: u32,
    column: u32,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    /// A copy of the anchored node: its children belong to that one.
    pub(super) alias: bool,
    pub(super) value: Value,
}

/// A node's value. A scalar is text: what it means is known only where it is used.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`: as if the key were not there.
    Null,
    /// Any other scalar.
    Scalar(Box<str>),
    /// `[…]` or `- …`
    List(Vec<NodeId>),
    /// `{…}` or `key: …`
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) key_place: Place,
    pub(super) value: NodeId,
}

impl Tree {
    /// Reads a file into the tree; mistakes are noted. `None` for a file without a value, an error for one that breaks off.
    pub(super) fn read(
        &mut self,
        file: &Path,
        text: String,
        problems: &mut Problems,
    ) -> Result<Option<NodeId>, ()> {
        // YAML allows a byte order mark, but then columns would count it.
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        let source = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        let (root, mistakes) = yaml::read(source, &text, &mut self.nodes);
        self.sources.push(Source { file: file.into(), text });
        for (place, wrong) in mistakes {
            problems.error(|| self.problem_at(place, wrong));
        }
        root
    }

    pub(super) fn value(&self, node: NodeId) -> &Value {
        self.node(node).map_or(&Value::Null, |node| &node.value)
    }

    fn node(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(node.0 as usize)
    }

    /// Adds a node that stands where another does: the outcome of a merge.
    pub(super) fn add(&mut self, like: NodeId, value: Value) -> NodeId {
        let place = self.node(like).map_or(Place::NOWHERE, |node| node.place);
        add(&mut self.nodes, Node { place, alias: false, value })
    }

    /// The file that a node stands in.
    pub(super) fn file_of(&self, node: NodeId) -> Option<&Arc<Path>> {
        let source = self.node(node)?.place.source;
        Some(&self.sources.get(source as usize)?.file)
    }

    /// Where a node stands.
    pub(super) fn origin(&self, node: NodeId) -> Origin {
        self.node(node)
            .map_or_else(|| self.origin_at(Place::NOWHERE), |node| self.origin_at(node.place))
    }

    /// A place for messages.
    pub(super) fn origin_at(&self, place: Place) -> Origin {
        let source = self.sources.get(place.source as usize);
        let file = source.map_or_else(|| Path::new("").into(), |source| Arc::clone(&source.file));
        Origin { file, line: place.line, column: place.column }
    }

    /// A problem of a node's value.
    pub(super) fn problem(&self, node: NodeId, wrong: Wrong) -> Problem {
        let place = self.node(node).map_or(Place::NOWHERE, |node| node.place);
        self.problem_at(place, wrong).with_key(self.path(node))
    }

    /// A problem at a place.
    pub(super) fn problem_at(&self, place: Place, wrong: Wrong) -> Problem {
        match self.sources.get(place.source as usize) {
            Some(source) => {
                let bytes = place.start as usize..place.end as usize;
                Problem::at(&source.file, &source.text, place.line, bytes, wrong)
            }
            None => Problem::of_file(Path::new(""), wrong),
        }
    }

    /// Notes whose child each node is, for [`Tree::path`]. Called again when nodes have been added.
    pub(super) fn complete(&mut self) {
        self.parents = vec![None; self.nodes.len()];
        for (number, node) in (0u32..).zip(&self.nodes) {
            let children: Vec<NodeId> = match &node.value {
                Value::List(items) if !node.alias => items.clone(),
                Value::Map(entries) if !node.alias => {
                    entries.iter().map(|entry| entry.value).collect()
                }
                Value::List(_) | Value::Map(_) | Value::Null | Value::Scalar(_) => continue,
            };
            for child in children {
                if let Some(parent) = self.parents.get_mut(child.0 as usize) {
                    *parent = Some(NodeId(number));
                }
            }
        }
    }

    /// A node's path from the top, such as `routes[2].allow`.
    pub(super) fn path(&self, node: NodeId) -> String {
        let mut steps = Vec::new();
        let mut at = node;
        while let Some(parent) = self.parents.get(at.0 as usize).copied().flatten() {
            steps.push(self.step(parent, at));
            at = parent;
        }
        steps.reverse();
        steps.concat().trim_start_matches('.').to_owned()
    }

    fn step(&self, parent: NodeId, child: NodeId) -> String {
        match self.value(parent) {
            Value::List(items) => {
                let index = items.iter().position(|&item| item == child).unwrap_or_default();
                format!("[{index}]")
            }
            Value::Map(entries) => {
                let entry = entries.iter().find(|entry| entry.value == child);
                format!(".{}", entry.map_or("", |entry| &entry.key))
            }
            Value::Null | Value::Scalar(_) => String::new(),
        }
    }
}

impl Place {
    const NOWHERE: Self = Self { source: u32::MAX, start: 0, end: 0, line: 0, column: 0 };

    pub(super) fn new(source: u32, span: &Span) -> Self {
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            source,
            start: small(span.start.byte_offset().unwrap_or_default()),
            end: small(span.end.byte_offset().unwrap_or_default()),
            line: small(span.start.line()),
            column: small(span.start.col() + 1),
        }
    }
}

/// Adds a node.
pub(super) fn add(nodes: &mut Vec<Node>, node: Node) -> NodeId {
    nodes.push(node);
    // Never saturates: MAX_VALUES is far below.
    NodeId(u32::try_from(nodes.len() - 1).unwrap_or(u32::MAX))
}
