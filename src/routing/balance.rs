//! Which endpoint next: lowest priority that has a usable one, then the less loaded of two taken at random.
//!
//! Two random choices come close to the least loaded of all, look at two endpoints only and do not send every core to the
//! same one at the same moment (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use super::endpoint::Health;
use super::order::Standing;
use super::table::{Candidate, Route};

/// The order in which one connection tries a route's endpoints; each at most once. Health and load are those of the moment
/// in which the next one is asked for. An endpoint that its check took down is never offered; an ejected one only when
/// ejections have left the route nothing else. One that is not for the client's side is as if it were not there.
#[derive(Debug)]
pub struct Attempts<'a> {
    route: &'a Route,
    standing: Standing<'a>,
    tried: Tried,
    random: Random,
}

impl<'a> Attempts<'a> {
    /// Starts choosing.
    pub fn new(route: &'a Route, standing: impl Into<Standing<'a>>) -> Self {
        Self::seeded(route, standing, Random::seed())
    }

    /// Goes on where others have been tried before.
    pub fn beyond(route: &'a Route, standing: Standing<'a>, tried: Tried) -> Self {
        Self { tried, ..Self::new(route, standing) }
    }

    /// Whether there is any that has not been tried, whatever its health.
    pub fn has_more(&self) -> bool {
        let mut rest = (0..).zip(&self.route.candidates).filter(|(index, candidate)| {
            !self.tried.contains(*index) && self.route.offers(candidate, self.standing)
        });
        rest.next().is_some()
    }

    /// What has been tried.
    pub fn into_tried(self) -> Tried {
        self.tried
    }

    fn seeded(route: &'a Route, standing: impl Into<Standing<'a>>, seed: u64) -> Self {
        let standing = standing.into();
        Self { route, standing, tried: Tried::default(), random: Random(seed) }
    }

    fn next_at(&mut self, now: Instant) -> Option<&'a Candidate> {
        let chosen = self.choose(now)?;
        self.tried.insert(chosen);
        self.route.candidates.get(chosen)
    }

    fn choose(&mut self, now: Instant) -> Option<usize> {
        for rank in 0..self.standing.ranks() {
            let mut start = 0;
            let candidates = &self.route.candidates;
            for tier in candidates.chunk_by(|one, other| one.priority == other.priority) {
                if let Some(chosen) = self.choose_within(start, tier, rank, now) {
                    return Some(chosen);
                }
                start += tier.len();
            }
        }
        self.spared(now)
    }

    /// Both draws go by weight, so that endpoints without load get their share of it too. `start` is the tier's first index.
    fn choose_within(
        &mut self,
        start: usize,
        tier: &'a [Candidate],
        rank: usize,
        now: Instant,
    ) -> Option<usize> {
        let Self { route, standing, tried, random } = self;
        let usable = (start..).zip(tier).filter(|&(index, candidate)| {
            !tried.contains(index)
                && route.rank(candidate, *standing) == Some(rank)
                && candidate.health_at(now) == Health::Healthy
        });
        let (first, candidate) = random.draw(usable.clone())?;
        let others = usable.filter(|&(index, _)| index != first);
        match random.draw(others) {
            Some((second, other)) if less_loaded(other, candidate) => Some(second),
            Some(_) | None => Some(first),
        }
    }

    /// When ejections have taken all that checks left, the endpoint whose ejection ends first is as good as healthy: trying it
    /// costs one connect, not trying it makes a passing fault of the network an outage.
    fn spared(&self, now: Instant) -> Option<usize> {
        let mut spared: Option<(u64, usize)> = None;
        let offered = |candidate: &Candidate| self.route.offers(candidate, self.standing);
        let candidates = self.route.candidates.iter().enumerate();
        for (index, candidate) in candidates.filter(|(_, candidate)| offered(candidate)) {
            match candidate.health_at(now) {
                Health::Healthy => return None,
                Health::Ejected => {
                    let this = (candidate.endpoint.ejected_until(), index);
                    spared = Some(spared.map_or(this, |other| other.min(this)));
                }
                Health::Down => {}
            }
        }
        spared.map(|(_, index)| index).filter(|&index| !self.tried.contains(index))
    }
}

impl<'a> Iterator for Attempts<'a> {
    type Item = &'a Candidate;

    fn next(&mut self) -> Option<&'a Candidate> {
        self.next_at(Instant::now())
    }
}

/// By open connections for each unit of weight.
fn less_loaded(this: &Candidate, other: &Candidate) -> bool {
    let load = |of: &Candidate, by: &Candidate| u64::from(of.endpoint.open()) * weight(by);
    load(this, other) < load(other, this)
}

fn weight(candidate: &Candidate) -> u64 {
    u64::from(candidate.weight.max(1))
}

/// Which candidates of a route have been tried. Allocates only for those after the 64th.
#[derive(Debug, Default)]
pub struct Tried {
    first: u64,
    beyond: Vec<usize>,
}

impl Tried {
    fn insert(&mut self, index: usize) {
        match bit(index) {
            Some(bit) => self.first |= bit,
            None => self.beyond.push(index),
        }
    }

    fn contains(&self, index: usize) -> bool {
        match bit(index) {
            Some(bit) => self.first & bit != 0,
            None => self.beyond.contains(&index),
        }
    }
}

fn bit(index: usize) -> Option<u64> {
    u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index))
}

/// `SplitMix64` (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014): three lines, no dependency, and
/// nothing here has to be secret.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn seed() -> u64 {
        thread_local! {
            static SEED: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
        }
        SEED.with(|seed| {
            let mut random = Random(seed.get());
            let drawn = random.next();
            seed.set(random.0);
            drawn
        })
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of some candidates, each as likely as its weight says. Health may change between the two passes; then the last
    /// one that is left serves.
    fn draw<'a>(
        &mut self,
        candidates: impl Iterator<Item = (usize, &'a Candidate)> + Clone,
    ) -> Option<(usize, &'a Candidate)> {
        let total: u64 = candidates.clone().map(|(_, candidate)| weight(candidate)).sum();
        let mut left = self.next().checked_rem(total)?;
        let mut drawn = None;
        for (index, candidate) in candidates {
            drawn = Some((index, candidate));
            match left.checked_sub(weight(candidate)) {
                Some(less) => left = less,
                None => break,
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::client::Side;
    use crate::model::name::Name;
    use crate::model::snapshot::{Allow, AllowRule, Answer, Kind};
    use crate::policy::Policy;
    use crate::routing::endpoint::Endpoints;
    use crate::routing::table::{Import, Via};
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};
    use std::sync::Arc;
    use std::time::Duration;

    /// Health of one candidate of a made-up route.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Made {
        Healthy,
        /// Ejected this many times, so for 2^(n-1) seconds.
        Ejected(u32),
        Down,
    }

    fn make(now: Instant, candidates: &[(u8, u16, Made)]) -> Route {
        let mut endpoints = Endpoints::default();
        let candidate = |(index, &(priority, weight, made)): (usize, &(u8, u16, Made))| {
            let port = 1 + u16::try_from(index).unwrap();
            let endpoint = endpoints.intern(([10, 0, 0, 1], port).into(), None);
            match made {
                Made::Healthy => {}
                Made::Down => endpoint.checked(false),
                Made::Ejected(times) => {
                    let hour = Duration::from_hours(1);
                    let start = now.checked_sub(hour).unwrap();
                    (0..times + 2).for_each(|failure| {
                        endpoint.failed_at(start + hour * failure / (times + 1));
                    });
                }
            }
            Candidate { endpoint, weight, priority, via: None }
        };
        let mut candidates: Vec<_> = candidates.iter().enumerate().map(candidate).collect();
        candidates.sort_by_key(|candidate| candidate.priority);
        Route {
            label: "route".into(),
            holds: [].into(),
            kind: Kind::Plain,
            policy: Arc::new(Policy::Open),
            import: None,
            candidates: candidates.into(),
            absent: [].into(),
            send_proxy: false,
            quiet_close: true,
            plaintext: false,
            dials: Arc::default(),
        }
    }

    /// The ports that a connection tries if every connect fails, without that being noted.
    fn order(route: &Route, seed: u64, now: Instant) -> Vec<u16> {
        let mut attempts = Attempts::seeded(route, Side::Remote, seed);
        std::iter::from_fn(|| attempts.next_at(now))
            .map(|next| next.endpoint.address.port())
            .collect()
    }

    #[test]
    fn the_next_priority_takes_over_when_a_tier_is_gone() {
        let now = Instant::now() + Duration::from_hours(2);
        let route = make(
            now,
            &[
                (0, 1, Made::Ejected(1)),
                (1, 1, Made::Healthy),
                (0, 1, Made::Down),
                (2, 1, Made::Healthy),
            ],
        );
        assert_eq!(order(&route, 1, now), [2, 4]);
    }

    #[test]
    fn the_endpoint_that_comes_back_first_is_spared_when_all_are_ejected() {
        let now = Instant::now() + Duration::from_hours(2);
        let all = [(0, 1, Made::Ejected(3)), (0, 1, Made::Ejected(1)), (1, 1, Made::Ejected(2))];
        let route = make(now, &all);
        assert_eq!(order(&route, 1, now), [2]);
        route.candidates[1].endpoint.checked(false);
        assert_eq!(order(&route, 1, now), [3], "the check's word holds");
        route.candidates[0].endpoint.connected();
        assert_eq!(order(&route, 1, now), [1], "with a healthy one nothing needs to be spared");
    }

    #[test]
    fn checks_may_take_all_down() {
        let now = Instant::now();
        assert!(order(&make(now, &[(0, 1, Made::Down), (1, 1, Made::Down)]), 1, now).is_empty());
        assert!(order(&make(now, &[]), 1, now).is_empty());
    }

    #[test]
    fn what_changes_during_a_connection_counts_for_its_next_attempt() {
        let now = Instant::now();
        let route =
            make(now, &[(0, 1, Made::Healthy), (1, 1, Made::Healthy), (2, 1, Made::Healthy)]);
        let mut attempts = Attempts::seeded(&route, Side::Remote, 1);
        assert_eq!(attempts.next_at(now).unwrap().priority, 0);
        route.candidates[1].endpoint.checked(false);
        assert_eq!(attempts.next_at(now).unwrap().priority, 2);
        route.candidates[1].endpoint.checked(true);
        assert_eq!(attempts.next_at(now).unwrap().priority, 1);
        assert!(attempts.next_at(now).is_none());
    }

    #[test]
    fn connections_spread_by_weight_with_and_without_load() {
        let now = Instant::now();
        let weights = [1, 2, 5];
        let route = make(now, &weights.map(|weight| (0, weight, Made::Healthy)));
        let mut held = vec![];
        for hold in [false, true] {
            let mut chosen = HashMap::<u16, u32>::new();
            for seed in 0..8000 {
                let first = Attempts::seeded(&route, Side::Remote, Random(seed).next())
                    .next_at(now)
                    .unwrap();
                *chosen.entry(first.weight).or_default() += 1;
                held.extend(hold.then(|| first.endpoint.connection()));
            }
            for weight in weights {
                let share = u32::from(weight) * 1000;
                assert!(chosen[&weight].abs_diff(share) < 150, "{chosen:?}, held: {hold}");
            }
        }
    }

    #[test]
    fn the_less_loaded_of_two_is_taken() {
        let now = Instant::now();
        let route = make(now, &[(0, 1, Made::Healthy), (0, 1, Made::Healthy)]);
        let _held = route.candidates[0].endpoint.connection();
        assert!((0..100).all(|seed| order(&route, seed, now)[0] == 2));
    }

    #[test]
    fn more_than_64_are_each_tried_once() {
        let now = Instant::now();
        let route = make(now, &[(0, 1, Made::Healthy); 200]);
        let tried = order(&route, 1, now);
        assert_eq!(tried.iter().collect::<HashSet<_>>().len(), 200);
        assert_eq!(tried.len(), 200);
    }

    #[test]
    fn seeds_differ() {
        let seeds: HashSet<_> = (0..100).map(|_| Random::seed()).collect();
        assert_eq!(seeds.len(), 100);
    }

    fn made() -> impl Strategy<Value = Made> {
        prop_oneof![Just(Made::Healthy), (1_u32..4).prop_map(Made::Ejected), Just(Made::Down)]
    }

    /// Turns every candidate whose port is in the set into a gateway.
    fn with_gateways(mut route: Route, ports: &HashSet<u16>, own: bool) -> Route {
        let name = Name::parse("orders.example").unwrap();
        let via = Arc::new(Via { cluster: "east".into(), name, reach: None });
        for candidate in &mut route.candidates {
            let gateway = ports.contains(&candidate.endpoint.address.port());
            candidate.via = gateway.then(|| Arc::clone(&via));
        }
        let callers = Policy::compile(&Allow::Rules(vec![AllowRule::Any]));
        route.import = Some(Arc::new(Import {
            port: None,
            callers,
            own,
            quiet_close: true,
            plaintext: false,
            failback: Duration::ZERO,
            names: Box::default(),
            answer: Answer::Linked,
        }));
        route
    }

    proptest! {
        /// Each side is led as by a route that has only what the side is offered.
        #[test]
        fn a_side_is_led_as_if_the_rest_were_not_there(
            candidates in prop::collection::vec((0_u8..3, 0_u16..4, made(), any::<bool>()), 0..40),
            own: bool,
            local: bool,
            seed: u64,
        ) {
            let now = Instant::now() + Duration::from_hours(2);
            let made: Vec<_> = candidates.iter().map(|&(priority, weight, made, _)| (priority, weight, made)).collect();
            let gateways = (1..).zip(&candidates).filter(|(_, (.., gateway))| *gateway).map(|(port, _)| port).collect();
            let route = with_gateways(make(now, &made), &gateways, own);
            let side = if local { Side::Local } else { Side::Remote };
            let mut attempts = Attempts::seeded(&route, side, seed);
            let tried: Vec<u16> = std::iter::from_fn(|| attempts.next_at(now)).map(|next| next.endpoint.address.port()).collect();
            let offered: Vec<_> = (1_u16..).zip(&candidates).filter(|(_, (.., gateway))| match (local, gateway) {
                (false, gateway) => !gateway,
                (true, gateway) => *gateway || own,
            }).map(|(port, &(priority, weight, made, _))| (port, (priority, weight, made))).collect();
            let alone = make(now, &offered.iter().map(|(_, made)| *made).collect::<Vec<_>>());
            let alone: Vec<u16> = order(&alone, seed, now).into_iter().map(|port| offered[usize::from(port) - 1].0).collect();
            // Chance decides within a priority.
            let told = |ports: Vec<u16>| {
                let priorities: Vec<u8> = ports.iter().map(|&port| candidates[usize::from(port) - 1].0).collect();
                (priorities, ports.len(), ports.into_iter().collect::<HashSet<_>>())
            };
            prop_assert_eq!(told(tried), told(alone));
        }

        #[test]
        fn healthy_ones_come_once_each_by_priority(
            candidates in prop::collection::vec((0_u8..3, 0_u16..4, made()), 0..80),
            seed: u64,
        ) {
            let now = Instant::now() + Duration::from_hours(2);
            let route = make(now, &candidates);
            let tried = order(&route, seed, now);
            let written = |port: &u16| candidates[usize::from(*port) - 1];
            let healthy = candidates.iter().filter(|(_, _, made)| *made == Made::Healthy).count();
            if healthy > 0 {
                prop_assert!(tried.iter().all(|port| written(port).2 == Made::Healthy));
                prop_assert_eq!(tried.iter().collect::<HashSet<_>>().len(), healthy);
                prop_assert_eq!(tried.len(), healthy);
                prop_assert!(tried.iter().map(|port| written(port).0).is_sorted());
            } else {
                let least = candidates.iter().filter_map(|(_, _, made)| match made {
                    Made::Ejected(times) => Some(*times),
                    Made::Healthy | Made::Down => None,
                }).min();
                let spared: Vec<_> = tried.iter().map(|port| written(port).2).collect();
                prop_assert_eq!(spared, least.map(Made::Ejected).into_iter().collect::<Vec<_>>());
            }
        }
    }
}
