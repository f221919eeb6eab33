//! The four clusters of the demo: who runs where, and how callers get to whom they want. Who may call whom is in
//! `configurations`, in the gateways' own words.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use time::OffsetDateTime;

use crate::cli::certs;

use super::DemoError;
use super::app::App;
use super::caller::{Caller, Line, Way};
use super::certificates::{Authority, TRUST_DOMAIN};
use super::cluster::{Cluster, Places, free, until};
use super::folder::Folder;

/// The app that two clusters run.
pub(super) const ORDERS: &str = "shop/orders";
/// The app whose sidecar runs without mTLS.
pub(super) const STOCK: &str = "shop/stock";
/// The app that next to nobody may call.
pub(super) const LEDGER: &str = "bank/ledger";

/// Has a resolver that gives names.
pub(super) const WEB: Caller = caller("shop/web", Some("west"), [127, 1, 0, 10]);
/// Has a resolver that gives addresses.
pub(super) const MOBILE: Caller = caller("shop/mobile", Some("west"), [127, 1, 0, 11]);
/// May call nothing until `strait allow` says otherwise.
pub(super) const RETURNS: Caller = caller("shop/returns", Some("west"), [127, 1, 0, 13]);
/// Its sidecar runs without mTLS.
pub(super) const LEGACY: Caller = caller("shop/legacy", Some("west"), [127, 1, 0, 12]);
/// May call the ledger and nothing else.
pub(super) const TELLER: Caller = caller("bank/teller", Some("west"), [127, 1, 0, 20]);
/// Calls past its own gateway.
pub(super) const COURIER: Caller = caller("shop/courier", Some("south"), [127, 3, 0, 10]);
/// Of a cluster that east lets call with another app alone.
pub(super) const INTERN: Caller = caller("shop/intern", Some("north"), [127, 4, 0, 10]);
/// Has a certificate under the sidecars' root and comes from a network that no rule names.
pub(super) const STRANGER: Caller = caller("shop/stranger", None, [127, 66, 0, 66]);

/// All of them.
const CALLERS: [Caller; 8] = [WEB, MOBILE, LEGACY, RETURNS, TELLER, COURIER, INTERN, STRANGER];

/// What east says of north, and
pub(super) const NORTH_CLOSED: &str = "{ cluster: north, apps: [shop/auditor] }";
/// what it says later.
pub(super) const NORTH_OPEN: &str = "{ cluster: north }";

/// The gateways' configurations; words with a `$` stand for addresses.
const WEST_YAML: &str = include_str!("configurations/west.yaml");
const EAST_YAML: &str = include_str!("configurations/east.yaml");
const SOUTH_YAML: &str = include_str!("configurations/south.yaml");
const NORTH_YAML: &str = include_str!("configurations/north.yaml");

/// The first address of west's egress pool.
const EGRESS: Ipv4Addr = Ipv4Addr::new(127, 1, 9, 1);

/// All that runs.
pub(super) struct World {
    /// Configurations, certificates, the log.
    pub(super) folder: Folder,
    /// Where most callers are.
    pub(super) west: Cluster,
    /// Where the apps are.
    pub(super) east: Cluster,
    /// Where one of them is once more.
    pub(super) south: Cluster,
    /// Whom east does not trust with everything.
    pub(super) north: Cluster,
    authority: Authority,
    egress: Vec<(String, SocketAddr)>,
}

/// Where everything listens.
struct Plan {
    west: Places,
    east: Places,
    south: Places,
    north: Places,
    egress_port: u16,
    apps_in_east: Vec<App>,
    apps_in_south: Vec<App>,
}

const fn caller(id: &'static str, cluster: Option<&'static str>, [a, b, c, d]: [u8; 4]) -> Caller {
    Caller { id, cluster, source: Ipv4Addr::new(a, b, c, d) }
}

/// The name under which callers know an app, as the gateways' `names` pattern makes it.
pub(super) fn name_of(app: &str) -> String {
    let (namespace, id) = app.split_once('/').unwrap_or(("default", app));
    format!("{id}.{namespace}.mesh.example")
}

impl World {
    /// Starts everything in this folder and waits until the gateways know of each other.
    pub(super) async fn begin(folder: Folder) -> Result<Self, DemoError> {
        let clusters = ["west", "east", "south", "north"].map(str::to_owned);
        certs::make(&folder.path().join("tls"), TRUST_DOMAIN, &clusters, OffsetDateTime::now_utc())
            .map_err(|error| DemoError::Links(error.to_string()))?;
        let authority = Authority::new()?;
        let plan = Plan::make(&authority).await?;
        let mut world = Box::pin(plan.start(folder, authority)).await?;
        for near in [&world.west, &world.north] {
            until(near.name, "heard what the others export", async || {
                let sources = near.status().await?.sources;
                let mut others = sources.iter().filter(|it| it.name.starts_with("exchange/"));
                Ok(others.all(|source| source.up).then_some(()))
            })
            .await?;
        }
        world.egress = egress(&world.west).await?;
        Ok(world)
    }

    /// Every cluster.
    pub(super) fn clusters(&self) -> [&Cluster; 4] {
        [&self.west, &self.east, &self.south, &self.north]
    }

    /// The apps that call from a cluster.
    pub(super) fn callers(cluster: &str) -> impl Iterator<Item = &'static str> {
        CALLERS.into_iter().filter(move |caller| caller.cluster == Some(cluster)).map(|it| it.id)
    }

    /// A caller that asks a cluster's gateway for an app by name.
    pub(super) fn by_name(
        &self,
        caller: Caller,
        app: &'static str,
        at: &Cluster,
    ) -> Result<Line, DemoError> {
        self.line(caller, app, Way::Name(name_of(app), at.places.ingress))
    }

    /// A caller in west that dials an app's egress address.
    pub(super) fn by_address(&self, caller: Caller, app: &'static str) -> Result<Line, DemoError> {
        self.line(caller, app, Way::Address(self.egress_of(app)?))
    }

    /// The same without TLS.
    pub(super) fn in_plain(&self, caller: Caller, app: &'static str) -> Result<Line, DemoError> {
        Ok(Line { caller, app, way: Way::Address(self.egress_of(app)?), tls: None })
    }

    /// Where callers in west dial an app that they call without a name.
    pub(super) fn egress_of(&self, app: &str) -> Result<SocketAddr, DemoError> {
        let found = self.egress.iter().find(|(of, _)| of == app).map(|(_, address)| *address);
        found.ok_or(DemoError::Lacking { cluster: "west", what: "egress address" })
    }

    /// Ends everything at once.
    pub(super) async fn end(&mut self) {
        for cluster in [&mut self.west, &mut self.north, &mut self.east, &mut self.south] {
            cluster.kill().await;
        }
    }

    fn line(&self, caller: Caller, app: &'static str, way: Way) -> Result<Line, DemoError> {
        let identity = self.authority.issue(caller.id)?;
        Ok(Line { caller, app, way, tls: Some(self.authority.client(&identity, app)?) })
    }
}

impl Plan {
    /// Starts the apps, and finds free ports for the gateways.
    async fn make(authority: &Authority) -> Result<Self, DemoError> {
        let places = |number| Places::at(Ipv4Addr::new(127, number, 0, 1));
        let (east, south) = (places(2)?, places(3)?);
        Ok(Self {
            west: places(1)?,
            east,
            south,
            north: places(4)?,
            egress_port: free(EGRESS)?.port(),
            apps_in_east: apps("east", east, authority, &[ORDERS, STOCK, LEDGER]).await?,
            apps_in_south: apps("south", south, authority, &[ORDERS]).await?,
        })
    }

    async fn start(self, folder: Folder, authority: Authority) -> Result<World, DemoError> {
        let fill = |template: &str| self.fill(template);
        let [west, east, south, north] = [WEST_YAML, EAST_YAML, SOUTH_YAML, NORTH_YAML].map(fill);
        let begin = async |name, places, text: &str, apps| {
            Box::pin(Cluster::start(name, folder.path(), places, text, apps)).await
        };
        // A store whose folder is not there would be an outage.
        let documents = folder.path().join("west").join("allowed");
        fs::create_dir_all(&documents)
            .map_err(|source| DemoError::File { path: documents, source })?;
        let (east_apps, south_apps) = (self.apps_in_east, self.apps_in_south);
        Ok(World {
            east: begin("east", self.east, &east, east_apps).await?,
            south: begin("south", self.south, &south, south_apps).await?,
            west: begin("west", self.west, &west, Vec::new()).await?,
            north: begin("north", self.north, &north, Vec::new()).await?,
            folder,
            authority,
            egress: Vec::new(),
        })
    }

    /// A configuration with the addresses in place. Longer words first: some begin with others.
    fn fill(&self, template: &str) -> String {
        let app = |apps: &[App], id| {
            apps.iter().find(|app| app.id == id).map(|app| app.address.to_string())
        };
        let mut text = template.replace("$EGRESS", &self.egress_port.to_string());
        let apps = [
            ("$ORDERS_EAST", app(&self.apps_in_east, ORDERS)),
            ("$ORDERS_SOUTH", app(&self.apps_in_south, ORDERS)),
            ("$STOCK", app(&self.apps_in_east, STOCK)),
            ("$LEDGER", app(&self.apps_in_east, LEDGER)),
        ];
        for (word, address) in apps {
            text = text.replace(word, &address.unwrap_or_default());
        }
        let gateways = [
            ("$WEST", self.west),
            ("$EAST", self.east),
            ("$SOUTH", self.south),
            ("$NORTH", self.north),
        ];
        for (word, Places { ingress, admin }) in gateways {
            text = text.replace(&format!("{word}_ADMIN"), &admin.to_string());
            text = text.replace(word, &ingress.to_string());
        }
        text
    }
}

async fn apps(
    cluster: &'static str,
    places: Places,
    authority: &Authority,
    ids: &[&'static str],
) -> Result<Vec<App>, DemoError> {
    let mut apps = Vec::new();
    for &id in ids {
        let identity = (id != STOCK).then(|| authority.issue(id)).transpose()?;
        let tls = identity.map(|identity| authority.server(&identity)).transpose()?;
        let anywhere = SocketAddr::new(places.ingress.ip(), 0);
        apps.push(App::start(id, cluster, anywhere, tls).await?);
    }
    Ok(apps)
}

/// Which address west's gateway has given to which app: what `strait status` tells.
async fn egress(west: &Cluster) -> Result<Vec<(String, SocketAddr)>, DemoError> {
    until(west.name, "opened its egress addresses", async || {
        let told = west.status().await?.egress;
        if told.is_empty() || told.iter().any(|address| address.trouble.is_some()) {
            return Ok(None);
        }
        let parsed = told.iter().map(|it| Some((it.app.clone(), it.address.parse().ok()?)));
        Ok(parsed.collect())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_address_of_the_configurations_is_filled_in() {
        let plan = Plan::make(&Authority::new().unwrap()).await.unwrap();
        for template in [WEST_YAML, EAST_YAML, SOUTH_YAML, NORTH_YAML] {
            let text = plan.fill(template);
            assert!(template.contains('$') && !text.contains('$'), "{text}");
            assert!(text.contains(&format!("trustDomain: {TRUST_DOMAIN}")), "{text}");
        }
        assert_eq!(EAST_YAML.matches(NORTH_CLOSED).count(), 1);
    }
}
