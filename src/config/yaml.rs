//! From YAML's events to nodes. serde-saphyr's own deserializer stops at the first mistake; the event parser that it is built
//! on does not, and tells where everything stands.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, ScanError, Span};

use super::problem::Wrong;
use super::tree::{Entry, Node, NodeId, Place, Value, add};

/// Values that one configuration may hold: 100,000 routes of 20 values each. An alias counts as what it stands for, so that a few
/// lines of aliases to aliases cannot stand for a billion values. More routes belong into a routes file.
const MAX_VALUES: usize = 2_000_000;
/// Lists and maps within each other. The deepest setting stands at six.
const MAX_DEPTH: usize = 32;

/// A mistake, and where it is.
type Mistake = (Place, Wrong);

/// Reads a file's text into nodes. The root is `None` for a file without a value, an error for one that breaks off.
pub(super) fn read(
    source: u32,
    text: &str,
    nodes: &mut Vec<Node>,
) -> (Result<Option<NodeId>, ()>, Vec<Mistake>) {
    let mut reading = Reading {
        source,
        nodes,
        open: Vec::new(),
        anchors: HashMap::new(),
        values: 0,
        documents: 0,
        root: None,
        mistakes: Vec::new(),
    };
    let end = reading.read(text);
    let root = if end.is_ok() { Ok(reading.root) } else { Err(()) };
    reading.mistakes.extend(end.err());
    (root, reading.mistakes)
}

/// A file being read.
#[derive(Debug)]
struct Reading<'n> {
    source: u32,
    nodes: &'n mut Vec<Node>,
    open: Vec<Open>,
    /// What an anchor stands for, and how many values that is. Only anchors whose node is complete.
    anchors: HashMap<usize, (NodeId, usize)>,
    values: usize,
    documents: usize,
    root: Option<NodeId>,
    mistakes: Vec<Mistake>,
}

/// A list or map whose end has not come yet.
#[derive(Debug)]
struct Open {
    place: Place,
    anchor: usize,
    values_before: usize,
    content: Value,
    /// In a map: the key whose value comes next.
    key: Option<(Box<str>, Place)>,
}

impl Reading<'_> {
    fn read(&mut self, text: &str) -> Result<(), Mistake> {
        let options = granit_parser::options! {
            emit_comments: false,
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| self.syntax(text, &error))?;
            let place = Place::new(self.source, &span);
            self.event(event, place)?;
            if self.values > MAX_VALUES {
                return Err((place, too_many_values()));
            }
        }
        Ok(())
    }

    fn syntax(&self, text: &str, error: &ScanError) -> Mistake {
        let place = Place::new(self.source, &Span::empty(*error.marker()));
        // The parser stops at the end of the last good line, the tab begins the next one.
        let near = text.lines().skip(error.marker().line().saturating_sub(1)).take(2);
        let tab = near.into_iter().any(|line| line.trim_start_matches(' ').starts_with('\t'));
        let fix = if tab {
            "indent with spaces: YAML allows no tabs there"
        } else {
            "mend the YAML here, or a line above: often an indentation, a missing quote, bracket or colon"
        };
        (place, Wrong::new(format!("not YAML: {}", error.info()), fix))
    }

    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Mistake> {
        match event {
            Event::DocumentStart(..) => self.documents += 1,
            Event::Scalar(text, style, anchor, tag) => {
                self.values += 1;
                self.check_tag(tag.is_some(), place);
                let value = scalar(&text, style);
                self.value(Node { place, alias: false, value }, anchor, 1);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.is_some(), place);
                self.open(place, anchor, Value::List(Vec::new()));
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.is_some(), place);
                self.open(place, anchor, Value::Map(Vec::new()));
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, place)?,
            // Nothing of these is a value; the parser's list is open, and what it adds comes with options that are off.
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::UnresolvedAlias(_)
            | _ => {}
        }
        Ok(())
    }

    fn check_tag(&mut self, tagged: bool, place: Place) {
        if tagged {
            self.mistakes
                .push((place, Wrong::new("YAML tags mean nothing here", "remove the tag")));
        }
    }

    fn open(&mut self, place: Place, anchor: usize, content: Value) {
        let values_before = self.values;
        self.values += 1;
        self.open.push(Open { place, anchor, values_before, content, key: None });
    }

    fn close(&mut self) {
        let Some(mut open) = self.open.pop() else { return };
        if let Value::Map(entries) = &mut open.content {
            self.drop_duplicates(entries);
        }
        let values = self.values - open.values_before;
        self.value(
            Node { place: open.place, alias: false, value: open.content },
            open.anchor,
            values,
        );
    }

    fn drop_duplicates(&mut self, entries: &mut Vec<Entry>) {
        let mut seen: HashMap<Box<str>, Place> = HashMap::with_capacity(entries.len());
        entries.retain(|entry| match seen.get(&entry.key) {
            Some(first) => {
                self.mistakes.push((entry.key_place, duplicate(&entry.key, *first)));
                false
            }
            None => seen.insert(entry.key.clone(), entry.key_place).is_none(),
        });
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), Mistake> {
        let Some(&(target, values)) = self.anchors.get(&anchor) else {
            let wrong = "an alias stands within the value that it stands for";
            return Err((place, Wrong::new(wrong, "write the value out")));
        };
        self.values += values;
        if self.values > MAX_VALUES {
            return Err((place, too_many_values()));
        }
        let value =
            self.nodes.get(target.0 as usize).map_or(Value::Null, |node| node.value.clone());
        self.value(Node { place, alias: true, value }, 0, values);
        Ok(())
    }

    /// A node is complete: it is a key, or a value of what is open, or the root.
    fn value(&mut self, node: Node, anchor: usize, values: usize) {
        let place = node.place;
        let awaits_key = self.open.last().is_some_and(Open::awaits_key);
        if awaits_key {
            let key = self.key(&node);
            if let Some(open) = self.open.last_mut() {
                open.key = Some((key, place));
            }
            return;
        }
        let id = add(self.nodes, node);
        if anchor != 0 {
            self.anchors.insert(anchor, (id, values));
        }
        match self.open.last_mut() {
            Some(open) => open.push(id),
            None if self.documents > 1 => {
                let fix = "leave one document in the file, without `---` between parts";
                self.mistakes.push((place, Wrong::new("a second YAML document", fix)));
            }
            None => self.root = Some(id),
        }
    }

    fn key(&mut self, node: &Node) -> Box<str> {
        match &node.value {
            Value::Scalar(text) => text.clone(),
            Value::Null | Value::List(_) | Value::Map(_) => {
                let fix = "write a plain word before the colon; a value that begins with { or [ needs quotes if text is meant";
                self.mistakes.push((node.place, Wrong::new("a key must be text", fix)));
                "".into()
            }
        }
    }
}

impl Open {
    fn awaits_key(&self) -> bool {
        matches!(self.content, Value::Map(_)) && self.key.is_none()
    }

    fn push(&mut self, value: NodeId) {
        match &mut self.content {
            Value::List(items) => items.push(value),
            Value::Map(entries) => {
                if let Some((key, key_place)) = self.key.take() {
                    entries.push(Entry { key, key_place, value });
                }
            }
            Value::Null | Value::Scalar(_) => {}
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let null = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if null { Value::Null } else { Value::Scalar(text.into()) }
}

fn duplicate(key: &str, first: Place) -> Wrong {
    let fix = format!("remove one; the first stands in line {}", first.line);
    Wrong::new(format!("the key `{key}` stands here twice"), fix)
}

fn too_many_values() -> Wrong {
    let fix =
        "put plain routes into a file of lines `name endpoint…` and name it under `routesFiles`";
    Wrong::new("more than 2,000,000 values in one file, enough for 100,000 routes", fix)
}
