//! From what another gateway says to the words of the model. Whatever it says is judged: it speaks for itself alone, and only of
//! what is imported from it.

use std::collections::BTreeMap;

use crate::exchange::proto::{App, State};
use crate::exchange::{MOST_APPS, MOST_NAMES};
use crate::model::cluster::is_own_name;
use crate::model::name::Name;
use crate::model::offer::{Callee, Exported, Wanted};

use super::Heard;

/// Why nothing of a state is believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("it speaks for another cluster, {0:?}")]
    Cluster(String),
    #[error("it names {0} apps, more than {MOST_APPS}")]
    TooMany(usize),
}

/// What counts of a state: the apps that are imported from the cluster, each under names that it can have.
pub(super) fn translate(cluster: &str, wanted: &Wanted, state: State) -> Result<Heard, Wrong> {
    let State { cluster: speaks_for, apps } = state;
    if speaks_for != cluster {
        let cut = speaks_for.chars().take(64).collect();
        return Err(Wrong::Cluster(cut));
    }
    if apps.len() > MOST_APPS {
        return Err(Wrong::TooMany(apps.len()));
    }
    let said = apps.len();
    let mut heard = BTreeMap::new();
    for app in apps {
        if let Some((id, told)) = self::app(wanted, &app) {
            heard.entry(id).or_insert(told);
        }
    }
    Ok(Heard { ignored: said - heard.len(), apps: heard })
}

fn app(wanted: &Wanted, said: &App) -> Option<(Callee, Exported)> {
    let id = Callee::parse(&said.app).filter(|id| wanted.has(id))?;
    let names = said.names.iter().take(MOST_NAMES).filter(|name| !is_own_name(name));
    let names: Vec<_> = names.filter_map(|name| Name::parse(name).ok()).collect();
    (!names.is_empty()).then_some((id, Exported { names, healthy: said.healthy_endpoints }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::app::AppId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn wanted() -> Wanted {
        let apps = BTreeSet::from([AppId::parse("shop/orders").unwrap()]);
        let services = BTreeSet::from([Name::parse("db.example").unwrap()]);
        Wanted { apps, namespaces: BTreeSet::from(["lab".into()]), services }
    }

    fn app(app: &str, names: &[&str]) -> App {
        let names = names.iter().map(ToString::to_string).collect();
        App { app: app.to_owned(), names, healthy_endpoints: 2 }
    }

    fn heard(apps: Vec<App>) -> (Vec<String>, usize) {
        let state = State { cluster: "east".to_owned(), apps };
        let Heard { apps, ignored } = translate("east", &wanted(), state).unwrap();
        let told = apps.iter().map(|(app, Exported { names, healthy })| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            format!("{app} {} {healthy}", names.join(","))
        });
        (told.collect(), ignored)
    }

    #[test]
    fn what_is_imported_counts_and_all_else_is_ignored() {
        let apps = vec![
            app("shop/orders", &["Orders.shop.example."]),
            app("shop/stock", &["stock.shop.example"]),
            app("db.example", &["db.example"]),
            app("other.example", &["other.example"]),
            app("lab/a", &["a.lab.example", "a.other.example"]),
            app("no app", &["b.lab.example"]),
            app("lab/nameless", &[]),
            app("lab/odd", &["not a name", "10.0.0.1", ""]),
            app("lab/sly", &["exchange.west.strait.internal"]),
            app("lab/a", &["again.lab.example"]),
        ];
        let expected = [
            "lab/a a.lab.example,a.other.example 2",
            "shop/orders orders.shop.example 2",
            "db.example db.example 2",
        ];
        assert_eq!(heard(apps), (expected.map(String::from).to_vec(), 7));
    }

    #[test]
    fn nobody_speaks_for_another_cluster() {
        for other in ["west", "", "East", "east."] {
            let state = State { cluster: other.to_owned(), apps: vec![] };
            let wrong = translate("east", &wanted(), state).unwrap_err();
            assert_eq!(wrong, Wrong::Cluster(other.to_owned()));
        }
    }

    #[test]
    fn too_many_apps_are_not_looked_at() {
        let most = vec![app("lab/a", &["a.example"]); MOST_APPS];
        assert_eq!(heard(most).1, MOST_APPS - 1);
        let apps = vec![App::default(); MOST_APPS + 1];
        let state = State { cluster: "east".to_owned(), apps };
        assert_eq!(translate("east", &wanted(), state), Err(Wrong::TooMany(MOST_APPS + 1)));
    }

    proptest! {
        #[test]
        fn whatever_is_said_only_what_is_wanted_is_heard(
            apps in prop::collection::vec(("[a-z/]{0,12}|lab/[a-z]{1,3}", prop::collection::vec(".{0,20}", 0..20)), 0..20),
        ) {
            let said = apps.len();
            let apps = apps.into_iter().map(|(app, names)| App { app, names, healthy_endpoints: 1 });
            let state = State { cluster: "east".to_owned(), apps: apps.collect() };
            let Heard { apps, ignored } = translate("east", &wanted(), state).unwrap();
            prop_assert_eq!(apps.len() + ignored, said);
            for (app, Exported { names, .. }) in &apps {
                prop_assert!(wanted().has(app) && (1..=MOST_NAMES).contains(&names.len()));
            }
        }
    }
}
