//! Asks DNS servers for one name: `/etc/hosts` first, then every server in turn until one answers.
//!
//! hickory's own pool is not used across servers: it takes the first reply of several servers as final, also when that is
//! SERVFAIL or REFUSED, and so a broken server that is fast would hide a good one. Here a server that cannot answer is passed
//! over, as libc does it; an answer, also a negative one, ends the search. Its cache is off: when to ask again is known above.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name as DnsName, RData, Record, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};

use crate::model::name::Name;

/// One try at one server. A cluster's resolver answers within milliseconds; one that forwards across the Internet, within some
/// hundred. `options timeout` of resolv.conf is meant for people who wait and not used.
const TRY: Duration = Duration::from_secs(1);
/// Further tries at the same server: one lost datagram must not look like a dead server.
const RETRIES: usize = 1;
/// A server that has not answered by then is passed over: all tries, with the change to TCP for a truncated answer.
const SERVER: Duration = Duration::from_millis(2500);
/// What `/etc/hosts` says has no TTL.
const HOSTS_TTL: Duration = Duration::from_mins(5);

/// What DNS says of one name, in one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name has these addresses, at least one.
    Addresses {
        /// In the order of the answer.
        list: Vec<IpAddr>,
        /// How long the answer may be relied on; not bounded yet.
        ttl: Duration,
    },
    /// The name has no address: it does not exist (NXDOMAIN) or has none of this family (NODATA, RFC 2308 §2).
    Nothing,
    /// No server could tell.
    Failed(String),
}

/// IPv4 and IPv6, in this order.
pub(super) type Answers = [Answer; 2];

/// Asks one set of servers.
pub(super) struct Resolver {
    servers: Vec<(SocketAddr, TokioResolver)>,
    /// The server that answered last. It is asked first, so that a dead one before it costs its time only once.
    answering: AtomicUsize,
    search: Search,
    hosts: Hosts,
    /// Why there are no servers.
    trouble: String,
}

/// How the system completes short names (resolv.conf(5), `search` and `ndots`).
#[derive(Debug, Default)]
struct Search {
    domains: Vec<DnsName>,
    dots: usize,
}

impl Resolver {
    /// Asks these servers, or the system's if there are none. Names are whole where the configuration names the servers; with the
    /// system's servers its search list applies, as it does for every other program of the machine or pod.
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        let hosts = Hosts::from_system().unwrap_or_default();
        if !servers.is_empty() {
            return Self::of(servers, Search::default(), hosts);
        }
        match system_conf::read_system_conf() {
            Ok((config, options)) => {
                let servers = config.name_servers().iter();
                let servers: Vec<_> = servers.map(|server| (server.ip, DNS_PORT).into()).collect();
                let search = Search { domains: config.search().to_vec(), dots: options.ndots };
                Self::of(&servers, search, hosts)
            }
            Err(error) => {
                let none = Self::of(&[], Search::default(), hosts);
                let trouble = format!("/etc/resolv.conf: {error}; set resolver.servers");
                Self { trouble, ..none }
            }
        }
    }

    fn of(servers: &[SocketAddr], search: Search, hosts: Hosts) -> Self {
        let mut trouble = "no DNS server; set resolver.servers".to_owned();
        let mut usable = Vec::new();
        for &server in servers {
            match connect(server) {
                Ok(client) => usable.push((server, client)),
                Err(error) => trouble = format!("{server}: {error}"),
            }
        }
        Self { servers: usable, answering: AtomicUsize::new(0), search, hosts, trouble }
    }

    /// What `/etc/hosts` or DNS says of a name. Takes at most [`SERVER`] for every server and name that is tried.
    pub(super) async fn resolve(&self, name: &Name) -> Answers {
        let candidates = match self.search.candidates(name) {
            Ok(candidates) => candidates,
            Err(error) => return [Answer::Failed(error.clone()), Answer::Failed(error)],
        };
        if let Some(answers) = self.in_hosts(name) {
            return answers;
        }
        for candidate in candidates {
            let (v4, v6) = tokio::join!(
                self.ask(&candidate, RecordType::A),
                self.ask(&candidate, RecordType::AAAA)
            );
            // A failure ends the search too: the next candidate would be another host of which it is not known that it is meant.
            if (&v4, &v6) != (&Answer::Nothing, &Answer::Nothing) {
                return [v4, v6];
            }
        }
        [Answer::Nothing, Answer::Nothing]
    }

    /// A name in `/etc/hosts` is not looked for elsewhere, not even in the family that the file lacks: "files" comes before "dns"
    /// in nsswitch.conf(5).
    fn in_hosts(&self, name: &Name) -> Option<Answers> {
        let fqdn = absolute(name.as_str()).ok()?;
        let find = |family| self.hosts.lookup_static_host(&Query::query(fqdn.clone(), family));
        let (v4, v6) = (find(RecordType::A), find(RecordType::AAAA));
        if v4.is_none() && v6.is_none() {
            return None;
        }
        let answer = |found: Option<Lookup>| {
            let records = found.iter().flat_map(Lookup::answers);
            let list: Vec<_> = records.filter_map(|record| record.data.ip_addr()).collect();
            if list.is_empty() {
                Answer::Nothing
            } else {
                Answer::Addresses { list, ttl: HOSTS_TTL }
            }
        };
        Some([answer(v4), answer(v6)])
    }

    async fn ask(&self, name: &DnsName, family: RecordType) -> Answer {
        let first = self.answering.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        let servers = self.servers.iter().enumerate();
        for (at, (server, client)) in servers.clone().skip(first).chain(servers.take(first)) {
            let lookup = tokio::time::timeout(SERVER, client.lookup(name.clone(), family)).await;
            match translate(name, lookup.unwrap_or(Err(NetError::Timeout))) {
                Answer::Failed(why) => failures.push(format!("{server}: {why}")),
                answer @ (Answer::Addresses { .. } | Answer::Nothing) => {
                    self.answering.store(at, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        if failures.is_empty() {
            Answer::Failed(self.trouble.clone())
        } else {
            Answer::Failed(failures.join("; "))
        }
    }
}

impl Search {
    /// The names to try, in order (resolv.conf(5)): a name with enough dots as it is and then completed, another the other way.
    fn candidates(&self, name: &Name) -> Result<Vec<DnsName>, String> {
        let whole = absolute(name.as_str())?;
        // A completed name that is longer than a name may be is none.
        let completed = self.domains.iter();
        let completed = completed.filter_map(|domain| absolute(&format!("{name}.{domain}")).ok());
        let dots = name.as_str().bytes().filter(|&byte| byte == b'.').count();
        Ok(if dots >= self.dots {
            std::iter::once(whole.clone()).chain(completed).collect()
        } else {
            completed.chain(std::iter::once(whole.clone())).collect()
        })
    }
}

const DNS_PORT: u16 = 53;

fn absolute(name: &str) -> Result<DnsName, String> {
    let mut absolute = DnsName::from_ascii(name).map_err(|error| error.to_string())?;
    absolute.set_fqdn(true);
    Ok(absolute)
}

fn connect(server: SocketAddr) -> Result<TokioResolver, NetError> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let config = NameServerConfig::new(server.ip(), true, connections.into());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![config]);
    let mut options = ResolverOpts::default();
    options.timeout = TRY;
    options.attempts = RETRIES;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let provider = TokioRuntimeProvider::default();
    TokioResolver::builder_with_config(config, provider).with_options(options).build()
}

/// What a server's reply means. Only what says so outright is [`Answer::Nothing`]: taking anything else for "no addresses" would
/// empty a route that works.
fn translate(asked: &DnsName, reply: Result<Lookup, NetError>) -> Answer {
    match reply {
        Ok(lookup) => addresses(asked, lookup.answers()),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) if is_negative(&none) => Answer::Nothing,
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            Answer::Failed(format!("{} without an answer", none.response_code))
        }
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// NXDOMAIN or NODATA, not a referral: a server that names others instead of answering does not know (RFC 2308 §2.2).
fn is_negative(none: &NoRecords) -> bool {
    let referral = none.soa.is_none() && none.ns.is_some();
    let code = none.response_code;
    code == ResponseCode::NXDomain || code == ResponseCode::NoError && !referral
}

/// The addresses at the end of the chain of aliases that starts at the name; the shortest TTL of the chain bounds them all.
fn addresses(asked: &DnsName, records: &[Record]) -> Answer {
    let mut owner = asked;
    let mut ttl = u32::MAX;
    let mut list = Vec::new();
    for record in records.iter().filter(|record| matches!(record.data, RData::CNAME(_))) {
        if let RData::CNAME(alias) = &record.data
            && record.name == *owner
        {
            owner = &alias.0;
            ttl = ttl.min(record.ttl);
        }
    }
    for record in records.iter().filter(|record| record.name == *owner) {
        if let Some(address) = record.data.ip_addr() {
            list.push(address);
            ttl = ttl.min(record.ttl);
        }
    }
    if list.is_empty() {
        Answer::Failed("the answer holds no address of this name".to_owned())
    } else {
        Answer::Addresses { list, ttl: Duration::from_secs(ttl.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::net::ForwardNSData;
    use hickory_resolver::proto::rr::rdata::{A, CNAME, NS, SOA};

    fn dns(name: &str) -> DnsName {
        absolute(name).unwrap()
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(dns(owner), ttl, RData::A(A::new(10, 0, 0, last)))
    }

    fn alias(owner: &str, ttl: u32, to: &str) -> Record {
        Record::from_rdata(dns(owner), ttl, RData::CNAME(CNAME(dns(to))))
    }

    fn said(records: Vec<Record>) -> Answer {
        let query = Query::query(dns("a.example"), RecordType::A);
        translate(&dns("a.example"), Ok(Lookup::new_with_max_ttl(query, records)))
    }

    fn found(hosts: &[u8], ttl: u64) -> Answer {
        let list = hosts.iter().map(|&host| [10, 0, 0, host].into()).collect();
        Answer::Addresses { list, ttl: Duration::from_secs(ttl) }
    }

    fn none(response_code: ResponseCode) -> NoRecords {
        NoRecords::new(Query::query(dns("a.example"), RecordType::A), response_code)
    }

    fn nothing(none: NoRecords) -> Answer {
        translate(&dns("a.example"), Err(none.into()))
    }

    #[test]
    fn all_addresses_are_taken_and_the_shortest_ttl() {
        assert_eq!(said(vec![a("a.example", 30, 1), a("A.example", 5, 2)]), found(&[1, 2], 5));
    }

    #[test]
    fn aliases_are_followed_and_bound_the_ttl() {
        let chain = [alias("a.example", 60, "b.example"), alias("b.example", 3, "c.example")];
        let answer = [&chain[..], &[a("c.example", 30, 7)]].concat();
        assert_eq!(said(answer), found(&[7], 3));
    }

    #[test]
    fn addresses_of_other_names_are_not_taken() {
        assert_eq!(said(vec![a("evil.example", 30, 66), a("a.example", 30, 1)]), found(&[1], 30));
        assert!(matches!(said(vec![a("evil.example", 30, 66)]), Answer::Failed(_)));
        assert!(matches!(said(vec![alias("a.example", 30, "b.example")]), Answer::Failed(_)));
    }

    #[test]
    fn only_a_negative_answer_is_nothing() {
        assert_eq!(nothing(none(ResponseCode::NXDomain)), Answer::Nothing);
        assert_eq!(nothing(none(ResponseCode::NoError)), Answer::Nothing);
        assert!(matches!(nothing(none(ResponseCode::Unknown(99))), Answer::Failed(_)));
        let servfail = NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail));
        assert!(matches!(translate(&dns("a.example"), Err(servfail)), Answer::Failed(_)));
        assert!(matches!(translate(&dns("a.example"), Err(NetError::Timeout)), Answer::Failed(_)));
    }

    #[test]
    fn a_referral_is_no_answer() {
        let ns = Record::from_rdata(dns("example"), 60, RData::NS(NS(dns("ns.example"))));
        let mut referral = none(ResponseCode::NoError);
        referral.ns = Some([ForwardNSData { ns, glue: [].into() }].into());
        assert!(matches!(nothing(referral.clone()), Answer::Failed(_)));
        let soa = SOA::new(dns("ns.example"), dns("root.example"), 1, 1, 1, 1, 1);
        referral.soa = Some(Box::new(Record::from_rdata(dns("example"), 60, soa)));
        assert_eq!(nothing(referral), Answer::Nothing);
    }

    #[test]
    fn the_systems_search_list_completes_short_names() {
        let domains = vec![dns("shop.svc.cluster.local"), dns("cluster.local")];
        let search = Search { domains, dots: 2 };
        let candidates = |name: &str| -> Vec<String> {
            let all = search.candidates(&Name::parse(name).unwrap()).unwrap();
            all.iter().map(ToString::to_string).collect()
        };
        let completed =
            ["checkout.shop.svc.cluster.local.", "checkout.cluster.local.", "checkout."];
        assert_eq!(candidates("checkout"), completed);
        assert_eq!(candidates("a.b.c").first().unwrap(), "a.b.c.");
        let whole = Search::default().candidates(&Name::parse("checkout").unwrap()).unwrap();
        assert_eq!(whole, [dns("checkout")]);
    }

    #[tokio::test]
    async fn the_hosts_file_comes_first_for_both_families() {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(&b"10.0.0.9 in-hosts.example\n"[..]).unwrap();
        let resolver = Resolver::of(&[], Search::default(), hosts);
        let name = Name::parse("In-Hosts.example").unwrap();
        let expected = Answer::Addresses { list: vec![[10, 0, 0, 9].into()], ttl: HOSTS_TTL };
        assert_eq!(resolver.resolve(&name).await, [expected, Answer::Nothing]);
        let [v4, _] = resolver.resolve(&Name::parse("elsewhere.example").unwrap()).await;
        assert_eq!(v4, Answer::Failed("no DNS server; set resolver.servers".to_owned()));
    }
}
