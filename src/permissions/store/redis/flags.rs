//! `notify-keyspace-events`: which events a Redis server tells of.

/// What is needed: keyspace events (K) of generic commands such as DEL (g), of strings ($), of keys that expire (x) and of keys
/// that are evicted (e).
const NEEDED: &str = "Kg$xe";
/// `A` stands for all classes of events but `m` and `n`; it is no `K`.
const ALL: char = 'A';

/// The flags that are set and what is missing of those that are needed; `None` where nothing is. What others have set stays:
/// they rely on it.
pub(super) fn completed(set: &str) -> Option<String> {
    let has = |flag: char| set.contains(flag) || (flag != 'K' && set.contains(ALL));
    let missing: String = NEEDED.chars().filter(|flag| !has(*flag)).collect();
    (!missing.is_empty()).then(|| format!("{set}{missing}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let completed = |set| completed(set).unwrap_or_else(|| "nothing".to_owned());
        assert_eq!(completed(""), "Kg$xe");
        assert_eq!(completed("Ex"), "ExKg$e");
        assert_eq!(completed("lhE"), "lhEKg$xe");
        assert_eq!(completed("AE"), "AEK");
        assert_eq!(completed("AKE"), "nothing");
        assert_eq!(completed("xge$K"), "nothing");
    }
}
