//! Who may name whom, and the other rules of the tree that no compiler checks. `ARCHITECTURE.md` explains the map.
//!
//! Sources are read as tokens, not as text: comments and strings name nothing, while paths inside macros do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module at the top of the crate, and the others that it may name.
type Row = (&'static str, May);

enum May {
    /// Assembly points: they join what must not know each other.
    All,
    /// Whatever a module may name, it may always name itself.
    Only(&'static [&'static [&'static str]]),
}

/// Words that every module but the lowest shares.
const WORDS: &[&str] = &["model", "policy"];
/// What stands around both sides.
const AROUND: &[&str] = &["config", "telemetry", "socket", "shutdown", "background"];
/// The control side, and the one place where it meets the data side.
const CONTROL: &[&str] = &["config", "discovery", "egress", "health", "routing"];

/// The whole table. A new module needs a row here before it can be named, and before it can name anything.
const TABLE: &[Row] = &[
    ("main", May::All),
    ("lib", May::All),
    ("cli", May::All),
    ("app", May::All),
    ("model", May::Only(&[])),
    ("shutdown", May::Only(&[])),
    ("background", May::Only(&[])),
    ("socket", May::Only(&[])),
    ("handover", May::Only(&[])),
    ("state", May::Only(&[])),
    ("reactor", May::Only(&[])),
    ("watch", May::Only(&[])),
    ("problem", May::Only(&[])),
    ("proxy_protocol", May::Only(&[&["model"]])),
    ("policy", May::Only(&[&["model"]])),
    ("config", May::Only(&[WORDS])),
    ("routing", May::Only(&[WORDS])),
    ("egress", May::Only(&[WORDS])),
    ("telemetry", May::Only(&[&["config", "model"]])),
    ("exchange", May::Only(&[&["routing", "cluster"], WORDS])),
    ("discovery", May::Only(&[CONTROL, &["exchange", "watch", "state"], AROUND, WORDS])),
    ("dns", May::Only(&[&["routing", "config", "telemetry", "socket", "shutdown"], WORDS])),
    ("permissions", May::Only(&[CONTROL, &["problem", "watch", "state", "tls"], AROUND, WORDS])),
    ("health", May::Only(&[CONTROL, AROUND, WORDS])),
    ("tls", May::Only(&[&["config", "watch"]])),
    ("cluster", May::Only(&[&["reactor", "proxy_protocol", "tls", "config"], WORDS])),
    ("proxy", May::Only(&[&["routing", "cluster", "reactor", "proxy_protocol"], AROUND, WORDS])),
    // Names no peer: `app` hands it closures.
    ("admin", May::Only(&[&["config", "problem", "socket", "shutdown"], WORDS])),
];

/// Words that only some modules may use, with the reason.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("unsafe", &[], "nothing here needs it"),
    ("rustls_pemfile", &["tls"], "it is archived: one place to replace it"),
    ("println", &["cli"], "only commands print; the rest logs"),
    ("print", &["cli"], "only commands print; the rest logs"),
    ("eprintln", &["cli"], "only commands print; the rest logs"),
    ("eprint", &["cli"], "only commands print; the rest logs"),
];

/// Words that make a function more than its arguments: `routing` is a value, and only `routing::live` swaps it.
const IMPURE: &[&str] = &[
    "tokio",
    "arc_swap",
    "fs",
    "thread",
    "process",
    "env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "tracing",
];

/// Longest program code of a file, in lines; comments and tests do not count.
const LONGEST_FILE: usize = 400;

/// Fewer files than this, and the test did not look at the tree that it was written for.
const FEWEST_FILES: usize = 40;

#[test]
fn modules_name_only_whom_they_may() {
    report(sources().iter().flat_map(|source| {
        let named = source.named();
        named.into_iter().filter_map(|name| source.may_not_name(&name)).collect::<Vec<_>>()
    }));
}

#[test]
fn every_module_has_a_row_and_every_row_a_module() {
    let found: BTreeSet<_> = sources().iter().map(|source| source.top().to_owned()).collect();
    let written: BTreeSet<_> = TABLE.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert_eq!(found, written, "left: modules in src/, right: rows of TABLE");
}

#[test]
fn reserved_words_stay_where_they_belong() {
    report(sources().iter().flat_map(Source::misplaced_words));
}

#[test]
fn routing_is_pure_but_for_live() {
    report(sources().iter().flat_map(Source::impurities));
}

#[test]
fn no_file_is_too_long() {
    let programs = sources().into_iter().filter(|source| !source.is_test());
    report(programs.filter_map(|source| {
        let lines = program_lines(&source.text);
        (lines > LONGEST_FILE).then(|| {
            format!("{}: {lines} lines of program code, at most {LONGEST_FILE}", source.path())
        })
    }));
}

#[test]
fn nothing_is_left_for_later() {
    let all = ["src", "tests", "benches", "fuzz/fuzz_targets"]
        .map(|folder| rust_files(&root().join(folder)));
    report(all.iter().flatten().flat_map(|path| {
        let text = fs::read_to_string(path).expect("a source is readable");
        let left = postponed(&text);
        left.into_iter().map(move |word| format!("{}: {word}", path.display()))
    }));
}

/// One file of `src/`.
struct Source {
    /// From the crate's root: `proxy`, `dial`.
    module: Vec<String>,
    file: PathBuf,
    text: String,
}

impl Source {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(root().join("src").join(file)).expect("a source is readable");
        Self { module: module_of(file), file: file.to_owned(), text }
    }

    fn planted(file: &str, text: &str) -> Self {
        Self { module: module_of(Path::new(file)), file: file.into(), text: text.to_owned() }
    }

    fn path(&self) -> String {
        format!("src/{}", self.file.display())
    }

    fn top(&self) -> &str {
        self.module.first().expect("every file is in a module")
    }

    /// Tests that are a file of their own.
    fn is_test(&self) -> bool {
        self.module.iter().any(|module| module == "tests")
    }

    fn tokens(&self) -> TokenStream {
        self.text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.path()))
    }

    /// Top-level modules that this file names.
    fn named(&self) -> BTreeSet<String> {
        let at_root = matches!(self.top(), "lib" | "main");
        let within = if at_root { Vec::new() } else { self.module.clone() };
        let mut named = BTreeSet::new();
        collect_named(self.tokens(), &within, &mut named);
        named
    }

    fn may_not_name(&self, name: &str) -> Option<String> {
        let row = TABLE.iter().find(|(module, _)| *module == self.top());
        let allowed = row.is_some_and(|(module, may)| match may {
            May::All => true,
            May::Only(groups) => {
                name == *module || groups.iter().any(|group| group.contains(&name))
            }
        });
        (!allowed)
            .then(|| format!("{} names `{name}`, which `{}` may not", self.path(), self.top()))
    }

    fn misplaced_words(&self) -> Vec<String> {
        let words = words(self.tokens());
        let misplaced = RESERVED
            .iter()
            .filter(|(word, places, _)| words.contains(*word) && !places.contains(&self.top()));
        misplaced.map(|(word, _, why)| format!("{} has `{word}`: {why}", self.path())).collect()
    }

    fn impurities(&self) -> Vec<String> {
        let live = self.module.get(1).is_some_and(|module| module == "live");
        if self.top() != "routing" || live || self.is_test() {
            return Vec::new();
        }
        let words = words(before_tests(&self.text).parse().expect("program code stands alone"));
        let impure = IMPURE.iter().filter(|word| words.contains(**word));
        impure.map(|word| format!("{} has `{word}`, but is to be pure", self.path())).collect()
    }
}

/// `proxy/dial.rs` and `proxy/dial/mod.rs` are both `proxy`, `dial`.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.len() > 1 {
        module.pop_if(|last| last == "mod");
    }
    module
}

/// Follows `crate::…` and `super::…` from a module; `within` is empty at the crate's root.
fn collect_named(tokens: TokenStream, within: &[String], named: &mut BTreeSet<String>) {
    let mut rest: &[TokenTree] = &tokens.into_iter().collect::<Vec<_>>();
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        match token {
            TokenTree::Ident(word) if word == "crate" => collect_path(after, &[], named),
            TokenTree::Ident(word) if word == "super" => {
                let (outer, behind) = climb(within, after);
                collect_path(behind, outer, named);
                rest = behind;
            }
            TokenTree::Ident(word) if word == "mod" => {
                if let [TokenTree::Ident(name), TokenTree::Group(body), behind @ ..] = after {
                    let inner = [within, &[name.to_string()]].concat();
                    collect_named(body.stream(), &inner, named);
                    rest = behind;
                }
            }
            TokenTree::Group(group) => collect_named(group.stream(), within, named),
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// From behind a first `super`: the module that the chain of them leads to, and what stands behind the chain.
fn climb<'a>(within: &'a [String], mut rest: &'a [TokenTree]) -> (&'a [String], &'a [TokenTree]) {
    let mut outer = within.split_last().map_or(within, |(_, outer)| outer);
    while let Some([TokenTree::Ident(word), behind @ ..]) = behind_colons(rest) {
        if word != "super" {
            break;
        }
        outer = outer.split_last().map_or(outer, |(_, outer)| outer);
        rest = behind;
    }
    (outer, rest)
}

/// Notes the top-level module of a path that goes on from `base`. A glob at the root names everything.
fn collect_path(rest: &[TokenTree], base: &[String], named: &mut BTreeSet<String>) {
    let Some(behind) = behind_colons(rest) else { return };
    if let Some(top) = base.first() {
        named.insert(top.clone());
        return;
    }
    match behind.first() {
        Some(TokenTree::Ident(word)) if word != "self" => {
            named.insert(word.to_string());
        }
        Some(TokenTree::Punct(mark)) if mark.as_char() == '*' => {
            named.insert("*".to_owned());
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            named.extend(heads(group.stream()));
        }
        Some(_) | None => {}
    }
}

/// First words of a group's members: `a` and `b` of `{a, b::{c, d}}`.
fn heads(group: TokenStream) -> Vec<String> {
    let tokens: Vec<_> = group.into_iter().collect();
    let members =
        tokens.split(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ','));
    members.filter_map(|member| member.first().map(ToString::to_string)).collect()
}

/// What stands behind `::`, if that is what comes.
fn behind_colons(rest: &[TokenTree]) -> Option<&[TokenTree]> {
    match rest {
        [TokenTree::Punct(one), TokenTree::Punct(two), behind @ ..]
            if one.as_char() == ':' && two.as_char() == ':' =>
        {
            Some(behind)
        }
        _ => None,
    }
}

/// Every identifier, at any depth.
fn words(tokens: TokenStream) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for token in tokens {
        match token {
            TokenTree::Ident(word) => {
                words.insert(word.to_string());
            }
            TokenTree::Group(group) => words.extend(self::words(group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    words
}

/// A file's text up to its tests.
fn before_tests(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]").map_or(text, |(program, _)| program)
}

/// Lines of code: a rule that counted comments would be one against comments.
fn program_lines(text: &str) -> usize {
    let lines = before_tests(text).lines().map(str::trim_start);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// Marks of unfinished work. Spelled in halves, so that this file does not hold them itself.
fn postponed(text: &str) -> Vec<&'static str> {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    marks.into_iter().filter(|mark| text.contains(mark)).collect()
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let files = rust_files(&src);
    assert!(files.len() >= FEWEST_FILES, "only {} files in {}", files.len(), src.display());
    files.iter().map(|file| Source::read(file.strip_prefix(&src).expect("below src"))).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a folder is readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Fails with every finding at once.
fn report(findings: impl Iterator<Item = String>) {
    let findings: Vec<_> = findings.collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// The test itself can fail: each way to name a module, planted.
mod planted {
    use super::*;

    fn names(file: &str, text: &str) -> Vec<String> {
        Source::planted(file, text).named().into_iter().collect()
    }

    #[test]
    fn every_way_to_name_a_module_is_seen() {
        let ways = [
            "use crate::app::State;",
            "use crate::{app::State};",
            "use crate::{app::{State, start}, config};",
            "pub(crate) use super::super::app;",
            "use super::super::{app::State, config as c};",
            "fn f() { crate::app::start() }",
            "fn f(s: &crate::app::State) {}",
            "fn f() { info!(state = ?crate::app::State) }",
            "macro_rules! m { () => { $crate::app::start() } }",
            "mod inner { use super::super::super::app; }",
            "#[cfg(test)] mod tests { fn f() { vec![super::super::super::app::State] } }",
        ];
        for way in ways {
            let found = names("proxy/dial.rs", way);
            assert!(found.contains(&"app".to_owned()), "{way}: {found:?}");
        }
    }

    #[test]
    fn what_names_nothing_else_is_not_seen() {
        let ways = [
            "// crate::app",
            "//! See [`crate::app`].\n/// Or `crate::app`.\npub(crate) struct S;",
            "const TEXT: &str = \"crate::app\";",
            "use tokio::net; use self::app::X; use app::Y;",
        ];
        for way in ways {
            assert_eq!(names("proxy/dial.rs", way), Vec::<String>::new(), "{way}");
        }
        assert_eq!(names("proxy/dial.rs", "use super::relay; use crate::proxy::hello;"), ["proxy"]);
        assert_eq!(names("proxy/mod.rs", "mod tests { use super::*; }"), ["proxy"]);
        assert_eq!(names("policy.rs", "use super::model::app::App;"), ["model"]);
    }

    #[test]
    fn a_glob_over_the_root_is_seen() {
        let source = Source::planted("policy.rs", "use crate::*;");
        assert!(source.may_not_name("*").is_some());
        assert_eq!(names("policy.rs", "use super::*;"), ["*"]);
    }

    #[test]
    fn data_and_control_may_not_name_each_other() {
        for (file, forbidden) in [
            ("proxy/dial.rs", "discovery"),
            ("proxy/dial.rs", "health"),
            ("discovery/dns.rs", "proxy"),
            ("health/probe.rs", "proxy"),
            ("routing/live.rs", "config"),
            ("config/file.rs", "routing"),
            ("model/name.rs", "policy"),
            ("admin/mod.rs", "proxy"),
            ("unknown/mod.rs", "model"),
        ] {
            let problem = Source::planted(file, "").may_not_name(forbidden);
            let problem = problem.unwrap_or_else(|| panic!("{file} may name {forbidden}"));
            assert!(problem.contains(file) && problem.contains(forbidden), "{problem}");
        }
        assert_eq!(Source::planted("proxy/dial.rs", "").may_not_name("routing"), None);
        assert_eq!(Source::planted("app/mod.rs", "").may_not_name("proxy"), None);
    }

    #[test]
    fn misplaced_words_are_seen() {
        let found = |file, text| Source::planted(file, text).misplaced_words().len();
        assert_eq!(found("proxy/dial.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(found("proxy/dial.rs", "fn f() { if x { println!() } }"), 1);
        assert_eq!(found("proxy/dial.rs", "use rustls_pemfile::certs;"), 1);
        assert_eq!(found("reactor.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(found("cli/run.rs", "fn f() { println!() }"), 0);
    }

    #[test]
    fn impure_routing_is_seen() {
        let found = |file, text| Source::planted(file, text).impurities().len();
        assert_eq!(found("routing/table.rs", "use std::fs;"), 1);
        assert_eq!(
            found("routing/table.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use std::fs; }"),
            0
        );
        assert_eq!(found("routing/live.rs", "use arc_swap::ArcSwap;"), 0);
        assert_eq!(found("proxy/dial.rs", "use std::fs;"), 0);
    }

    #[test]
    fn lines_end_at_the_tests() {
        assert_eq!(program_lines("//! c\na\n\n    // c\n    b\n#[cfg(test)]\nmod tests {}\n"), 2);
        assert_eq!(postponed(concat!("// TO", "DO: later")).len(), 1);
    }
}
