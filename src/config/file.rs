//! What may stand in a configuration file, as it is written. The JSON Schema is made from these types, their comments included.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::allowed_file::{self, AllowedApps};
use super::spot::{Spot, TextOr};

/// A setting that may be left out.
pub(super) type Setting<T> = Option<Spot<T>>;
/// A list that may be left out.
pub(super) type List<T> = Setting<Vec<Spot<T>>>;

/// Configuration of Strait.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Strait")]
pub(super) struct File {
    /// The name of this cluster. Must be there, in one file of a directory.
    pub(super) cluster: Setting<String>,
    /// A folder for what has to outlive the process, such as the last answers of DNS; by default nothing does. It is made if it is
    /// not there.
    pub(super) state_dir: Setting<String>,
    /// Which clients are of this cluster. Without it none is, and nobody can call what is imported.
    pub(super) local: Setting<Local>,
    /// Where connections come in.
    pub(super) listeners: Setting<Listeners>,
    /// Who answers for the host names of endpoints.
    pub(super) resolver: Setting<Resolver>,
    /// The names of every exported app: templates with `{app}` and `{namespace}`.
    pub(super) names: List<String>,
    /// How this gateway and those of other clusters prove to each other who they are.
    pub(super) link: Setting<Link>,
    /// The other clusters, by name.
    pub(super) clusters: Setting<BTreeMap<String, Spot<Cluster>>>,
    /// The apps of this cluster.
    pub(super) apps: List<LocalApp>,
    /// The apps that others may call.
    pub(super) exports: List<Export>,
    /// The apps of other clusters that apps of this one may call.
    pub(super) imports: List<Import>,
    /// Which apps of other clusters each app may call, besides what `imports` say: an app that stands here needs no import.
    pub(super) allowed: List<AllowedApps>,
    /// Where more such documents are kept, and what they decide.
    pub(super) allowed_apps: Setting<allowed_file::Settings>,
    /// Names with a port that are no apps and that clusters call from each other, such as a trace collector or a database. What
    /// their callers and they speak is carried as it is.
    pub(super) services: List<Service>,
    /// Routes to what is no app.
    pub(super) routes: List<Route>,
    /// Files with many routes, one a line: `name-or-*.suffix endpoint…`. These routes are open.
    pub(super) routes_files: List<String>,
    /// What is logged.
    pub(super) log: Setting<Log>,
    /// Limits of connections.
    pub(super) limits: Setting<Limits>,
    /// What is measured.
    pub(super) metrics: Setting<Metrics>,
}

/// Where connections come in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Listeners {
    /// Listeners where the server name of the TLS hello decides; by default one at `[::]:8443`.
    pub(super) ingress: List<Ingress>,
    /// Where every imported app has an address of its own, for callers that send no server name; by default nowhere.
    pub(super) egress: Setting<Egress>,
    /// `/metrics`, `/healthz` and `/readyz` for scrapes and probes from outside; by default nowhere.
    pub(super) metrics: Setting<MetricsListener>,
    /// The admin API.
    pub(super) admin: Setting<AdminListener>,
    /// A name server for the apps that are imported; by default none.
    pub(super) dns: Setting<DnsListener>,
}

/// The name server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DnsListener {
    /// Address and port, for UDP and TCP.
    #[schemars(required)]
    pub(super) address: Setting<String>,
    /// The zone that it has authority over: what is below it and no app's name does not exist. The names of imported apps are
    /// answered wherever they are.
    #[schemars(required)]
    pub(super) zone: Setting<String>,
    /// The addresses where callers reach this gateway's ingress listeners: what the names of imported apps stand for.
    #[schemars(required)]
    pub(super) announce: List<String>,
}

/// One ingress listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Ingress {
    /// Address and port; `[::]` takes IPv4 and IPv6.
    #[schemars(required)]
    pub(super) address: Setting<String>,
    /// Demands a PROXY protocol header.
    pub(super) proxy_protocol: Setting<ProxyProtocol>,
}

/// Egress addresses: `bind` with `ports`, or `pool` with `port`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Egress {
    /// The IP address where Strait listens; `[::]` takes IPv4 and IPv6.
    pub(super) bind: Setting<String>,
    /// The IP address that callers dial; by default `bind`, unless that is every address.
    pub(super) announce: Setting<String>,
    /// The ports to give, `20000-29999`; without it only apps that pin a port have one.
    pub(super) ports: Setting<String>,
    /// A network of which every app gets an address. It must be routed to this machine.
    pub(super) pool: Setting<String>,
    /// The port at each address of the pool: that which callers dial, 50002 with Dapr on Kubernetes.
    #[schemars(with = "Option<u16>", range(min = 1))]
    pub(super) port: Setting<String>,
}

/// Who sends a PROXY protocol header.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ProxyProtocol {
    /// Networks whose connections must begin with a header, version 1 or 2; from others none is accepted.
    #[schemars(required)]
    pub(super) from: List<String>,
}

/// The listener for scrapes and probes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MetricsListener {
    /// Address and port.
    #[schemars(required)]
    pub(super) address: Setting<String>,
}

/// The listener of the admin API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AdminListener {
    /// Address and port, or `unix:/path`; by default `127.0.0.1:9901`. Where others reach it, nothing but `/healthz` and `/readyz`
    /// is answered without `tokenFile` or `tls.clientCa`.
    #[schemars(required)]
    pub(super) address: Setting<String>,
    /// A file of bearer tokens, `token` or `name:token` a line, of which whoever asks must have one. By default there is none.
    pub(super) token_file: Setting<String>,
    /// Serves HTTPS instead of HTTP; by default HTTP.
    pub(super) tls: Setting<AdminTls>,
}

/// TLS of the admin API. The files are taken anew when they change.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AdminTls {
    /// The folder with `tls.crt` and `tls.key`, and `crl.pem` where there is one.
    #[schemars(required)]
    pub(super) directory: Setting<String>,
    /// A file with the only certificates that may have issued those of clients, who then need no token. Not the authority of
    /// the links: every gateway could then ask. By default clients' certificates count for nothing.
    pub(super) client_ca: Setting<String>,
    /// Whether a key that others on this machine may read is taken all the same; by default not.
    pub(super) allow_readable_key: Setting<bool>,
}

/// Who answers for host names.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Resolver {
    /// DNS servers, with port 53 unless they name one; by default those of the system.
    pub(super) servers: List<String>,
    /// Whether names may stand for loopback, link-local, metadata and unspecified addresses. Off by default: whoever can write
    /// a name's zone could otherwise lead callers to what only this machine should reach.
    pub(super) allow_local_addresses: Setting<bool>,
}

/// Another cluster.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cluster {
    /// Where its gateways listen, `host:port`; several are spread over. Needs `link`.
    pub(super) gateways: List<String>,
    /// The networks that its direct connections come from.
    pub(super) networks: List<String>,
    /// A file with the only certificates that may have issued that of its gateways; by default `ca.crt` of `link.directory`.
    pub(super) trust_bundle: Setting<String>,
    /// The trust domain of its gateways' certificates; by default that of `link`.
    pub(super) trust_domain: Setting<String>,
}

/// Which clients are of this cluster.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Local {
    /// The networks of its pods and machines.
    pub(super) networks: List<String>,
}

/// How gateways prove to each other who they are.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Link {
    /// The folder with `tls.crt`, `tls.key`, `ca.crt`, and `crl.pem` where there is one.
    #[schemars(required)]
    pub(super) directory: Setting<String>,
    /// The trust domain of the certificate, whose only URI is `spiffe://TRUST-DOMAIN/cluster/CLUSTER`.
    #[schemars(required)]
    pub(super) trust_domain: Setting<String>,
    /// Whether a key that others on this machine may read is taken all the same; by default not.
    pub(super) allow_readable_key: Setting<bool>,
}

/// An app of this cluster.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalApp {
    /// `namespace/app`.
    #[schemars(required)]
    pub(super) app: Setting<String>,
    /// Where its sidecars listen; may be left out for an app that only calls. Two apps with one endpoint are worth a warning: a
    /// sidecar serves one app.
    pub(super) endpoints: List<TextOr<Endpoint>>,
    /// Where it calls from: by this it is known as a caller, which is network, not identity.
    pub(super) from: List<From>,
    /// An active check of the endpoints; by default failed connects alone count.
    pub(super) check: Setting<Check>,
}

/// Where an app calls from: exactly one key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct From {
    /// A network in which no other app's callers are.
    pub(super) network: Setting<String>,
    /// A name that stands for the addresses of its pods, such as a headless Service's. Followed as its TTL says.
    pub(super) dns: Setting<String>,
    /// A user id of this machine. Tells the callers on loopback apart; only on Linux.
    #[schemars(with = "Option<u32>")]
    pub(super) uid: Setting<String>,
}

/// An endpoint with more than its address.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Endpoint {
    /// `host:port` or `ip:port`; a host stands for all its addresses.
    #[schemars(required)]
    pub(super) address: Setting<String>,
    /// Share of the load within the priority, 1 to 65535; by default 1.
    #[schemars(with = "Option<u16>", range(min = 1))]
    pub(super) weight: Setting<String>,
    /// 0 to 255; a higher number is used only when no lower one can be. By default 0.
    #[schemars(with = "Option<u8>")]
    pub(super) priority: Setting<String>,
}

/// An active check: a TCP connect.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Check {
    /// What a check does.
    pub(super) kind: Setting<CheckKind>,
    /// From the start of one check to the start of the next; by default `2s`.
    pub(super) interval: Setting<String>,
    /// A check that takes longer has failed; by default `1s`, or the interval if that is shorter.
    pub(super) timeout: Setting<String>,
    /// Successes in a row that bring an endpoint up; by default 2.
    #[schemars(with = "Option<u16>", range(min = 1))]
    pub(super) rise: Setting<String>,
    /// Failures in a row that take an endpoint down; by default 3.
    #[schemars(with = "Option<u16>", range(min = 1))]
    pub(super) fall: Setting<String>,
}

/// What a check does.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum CheckKind {
    /// Connects, and closes again.
    Tcp,
}

/// An app that others may call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Export {
    /// `namespace/app`, one of `apps`.
    #[schemars(required)]
    pub(super) app: Setting<String>,
    /// Its name, instead of those that `names` makes.
    pub(super) name: Setting<String>,
    /// Who may call it.
    #[schemars(required)]
    pub(super) allow: Setting<Allow>,
    /// Whether a connection that carries nothing but pings may be closed, in a drain and for `limits.maxAge`. By default true;
    /// false for calls that are silent for longer than a second.
    pub(super) quiet_close: Setting<bool>,
    /// Whether links may bring what is no TLS, for sidecars without mTLS on both sides. By default not.
    pub(super) plaintext: Setting<bool>,
}

/// `any`, or a list of rules of which one must hold.
pub(super) type Allow = TextOr<Vec<Spot<Rule>>>;
/// `any`, or a rule.
pub(super) type Rule = TextOr<RuleKeys>;

/// A rule: exactly one key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RuleKeys {
    /// Connections from this network.
    pub(super) network: Setting<String>,
    /// Connections from the networks of this cluster of `clusters`.
    pub(super) networks_of: Setting<String>,
    /// Links of this cluster of `clusters`, proven by its gateway's certificate. Stands in `exports`.
    pub(super) cluster: Setting<String>,
    /// Only for these apps of the cluster, which vouches for them; by default all.
    pub(super) apps: List<String>,
}

/// An app of other clusters that apps of this one may call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Import {
    /// `namespace/app`, or `namespace/*` for whatever those clusters export there.
    #[schemars(required)]
    pub(super) app: Setting<String>,
    /// The clusters where it is called, in order of preference. This one may be among them, and then stands for `apps`.
    #[schemars(required)]
    pub(super) clusters: List<String>,
    /// The apps of this cluster that may call it, or `any`; by default nobody.
    pub(super) allow: Setting<Callers>,
    /// Its name, instead of those that `names` makes.
    pub(super) name: Setting<String>,
    /// The egress address that it is to have; by default any of `listeners.egress`.
    pub(super) egress: Setting<Pin>,
    /// How many egress addresses it has, by default 1: a sidecar has one connection to each.
    #[schemars(with = "Option<u16>", range(min = 1))]
    pub(super) addresses: Setting<String>,
    /// Whether callers that speak no TLS, as sidecars without mTLS, are carried too: only by egress, and only to this cluster's
    /// own endpoints. By default not.
    pub(super) plaintext: Setting<bool>,
    /// Whether a connection that carries nothing but pings may be closed, in a drain and for `limits.maxAge`. By default true;
    /// false for calls that are silent for longer than a second.
    pub(super) quiet_close: Setting<bool>,
    /// How long a cluster of higher preference must have been well until connections that went elsewhere are closed between two
    /// calls, as `quietClose` allows; by default `30s`.
    #[schemars(with = "Option<TextOr<u32>>")]
    pub(super) failback: Setting<String>,
    /// What `listeners.dns` says that its name stands for: this gateway (`linked`, the default), or the gateways of the first
    /// healthy cluster (`direct`).
    pub(super) answer: Setting<Answer>,
}

/// `any`, or the apps of this cluster that may call.
pub(super) type Callers = TextOr<Vec<Spot<String>>>;

/// A name with a port that is no app. It has `endpoints` and `export` where it is, `import` where it is called, or all of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Service {
    /// Its name: the same in every cluster, and no app's.
    #[schemars(required)]
    pub(super) name: Setting<String>,
    /// Its port: that of endpoints which name none, and that which callers dial at its address of an egress pool.
    #[schemars(required, with = "Option<u16>", range(min = 1))]
    pub(super) port: Setting<String>,
    /// Where it listens in this cluster: `host:port`, or `host` alone.
    pub(super) endpoints: List<TextOr<Endpoint>>,
    /// An active check of the endpoints; by default failed connects alone count.
    pub(super) check: Setting<Check>,
    /// Offers it to other clusters.
    pub(super) export: Setting<ServiceExport>,
    /// Has it called in other clusters.
    pub(super) import: Setting<ServiceImport>,
}

/// Who may call a service from outside of this cluster.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ServiceExport {
    /// Who may call it.
    #[schemars(required)]
    pub(super) allow: Setting<Allow>,
    /// Whether a connection that carries no more than pings of HTTP/2 would may be closed, in a drain and for `limits.maxAge`. By
    /// default false: of anything else nobody knows when a call is under way.
    pub(super) quiet_close: Setting<bool>,
}

/// How a service of other clusters is called here.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ServiceImport {
    /// The clusters where it is called, in order of preference. This one may be among them, and then stands for `endpoints`.
    #[schemars(required)]
    pub(super) clusters: List<String>,
    /// The apps of this cluster that may call it, or `any`; by default nobody.
    pub(super) allow: Setting<Callers>,
    /// The egress address that it is to have; by default any of `listeners.egress`.
    pub(super) egress: Setting<Pin>,
    /// How many egress addresses it has, by default 1.
    #[schemars(with = "Option<u16>", range(min = 1))]
    pub(super) addresses: Setting<String>,
    /// Whether a connection that carries no more than pings of HTTP/2 would may be closed, in a drain, for `limits.maxAge` and to
    /// come back to a cluster of higher preference. By default false: of anything else nobody knows when a call is under way.
    pub(super) quiet_close: Setting<bool>,
    /// With `quietClose`: how long a cluster of higher preference must have been well until connections that went elsewhere are
    /// closed; by default `30s`.
    #[schemars(with = "Option<TextOr<u32>>")]
    pub(super) failback: Setting<String>,
    /// What `listeners.dns` says that its name stands for: this gateway (`linked`, the default), or the gateways of the first
    /// healthy cluster (`direct`), which only callers with TLS and its name get through.
    pub(super) answer: Setting<Answer>,
}

/// What the name of an imported app stands for.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// This gateway, which carries the calls over a link and decides who may call.
    Linked,
    /// The other cluster's gateways: one hop less. Only the other cluster can say who may call, and it knows networks only.
    Direct,
}

/// An egress address that an app must have: a port where there are ports, an address where there is a pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pin {
    /// The port, in `listeners.egress.ports` or outside of it.
    #[schemars(with = "Option<u16>", range(min = 1))]
    pub(super) port: Setting<String>,
    /// The address, of `listeners.egress.pool`.
    pub(super) address: Setting<String>,
}

/// A route to what is no app.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Route {
    /// A name, or `*.suffix` for every name below one.
    #[schemars(required)]
    pub(super) name: Setting<String>,
    /// Where it goes.
    #[schemars(required)]
    pub(super) endpoints: List<TextOr<Endpoint>>,
    /// Who may use it; by default everybody.
    pub(super) allow: Setting<Allow>,
    /// An active check of the endpoints; by default failed connects alone count.
    pub(super) check: Setting<Check>,
    /// Puts a PROXY protocol header in front of the client's bytes; by default none.
    pub(super) send_proxy: Setting<SendProxy>,
    /// Whether a connection that carries nothing but pings may be closed, in a drain and for `limits.maxAge`. By default true;
    /// false for calls that are silent for longer than a second.
    pub(super) quiet_close: Setting<bool>,
}

/// Version of a PROXY protocol header.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum SendProxy {
    /// Version 2, with the server name and a unique id.
    V2,
}

/// What is logged.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Log {
    /// Which connections get a line; by default all.
    pub(super) connections: Setting<Connections>,
}

/// Which connections are logged.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Connections {
    /// Every one.
    All,
    /// Those that were refused.
    Refusals,
    /// No one.
    None,
}

/// Limits of connections.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Limits {
    /// From accept to the last byte of the hello; by default `5s`.
    pub(super) hello_timeout: Setting<String>,
    /// Raw bytes of a hello, record headers included; by default `64KiB`.
    #[schemars(with = "Option<TextOr<u32>>")]
    pub(super) hello_bytes: Setting<String>,
    /// One connect to one endpoint; by default `1s`.
    pub(super) connect_timeout: Setting<String>,
    /// All connects of one connection; by default `3s`.
    pub(super) connect_total: Setting<String>,
    /// From the last byte of a hello at an endpoint to the first byte of its answer: one that is silent for longer counts as failed;
    /// by default `5s`, and 0 is no limit.
    #[schemars(with = "Option<TextOr<u32>>")]
    pub(super) first_byte_timeout: Setting<String>,
    /// A connection without a byte for so long is closed; by default `1h`, at least `15s`.
    pub(super) idle_timeout: Setting<String>,
    /// From the signal to stop to the end of accepting; by default `0s`.
    #[schemars(with = "Option<TextOr<u32>>")]
    pub(super) drain_delay: Setting<String>,
    /// From the end of accepting to the end of every connection; by default `25s`.
    #[schemars(with = "Option<TextOr<u32>>")]
    pub(super) drain_timeout: Setting<String>,
    /// A connection that is older is closed between two calls, never during one; by default 0, which is no limit, else at least
    /// `1s`.
    #[schemars(with = "Option<TextOr<u32>>")]
    pub(super) max_age: Setting<String>,
    /// Connections in all; by default 100000, and 0 is no limit beyond what file descriptors allow.
    #[schemars(with = "Option<u64>")]
    pub(super) connections: Setting<String>,
    /// Connections of one listener; by default 0, no limit.
    #[schemars(with = "Option<u64>")]
    pub(super) per_listener: Setting<String>,
    /// Connections of one source network; by default 0, no limit.
    #[schemars(with = "Option<u64>")]
    pub(super) per_source: Setting<String>,
    /// Connections whose hello is not whole yet; by default 10000, and 0 is no limit.
    #[schemars(with = "Option<u64>")]
    pub(super) pending: Setting<String>,
    /// The same of one source network; by default 0, no limit.
    #[schemars(with = "Option<u64>")]
    pub(super) pending_per_source: Setting<String>,
    /// Hellos of one source network in a second; by default 0, no limit.
    #[schemars(with = "Option<u64>")]
    pub(super) hello_rate: Setting<String>,
    /// Hellos of one source network that may come at once before `helloRate` counts; by default 0, as many as come in a second.
    #[schemars(with = "Option<u64>")]
    pub(super) hello_burst: Setting<String>,
    /// Bits of an IPv4 address that make a source network; by default 32, every address by itself.
    #[schemars(with = "Option<u8>")]
    pub(super) source_ipv4_prefix: Setting<String>,
    /// Bits of an IPv6 address that make a source network; by default 64, what a site gives to one link.
    #[schemars(with = "Option<u8>")]
    pub(super) source_ipv6_prefix: Setting<String>,
}

/// What is measured.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metrics {
    /// Most values of the label `route`; what comes after is `other`. By default 1000.
    #[schemars(with = "Option<u64>")]
    pub(super) routes: Setting<String>,
}
