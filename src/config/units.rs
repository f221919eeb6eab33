//! Durations, sizes and numbers as people write them.

use std::time::Duration;

use super::problem::Wrong;

/// Longest duration: longer ones are slips, and a deadline that far away must not overflow a clock.
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// Reads `250ms`, `5s`, `1m`, `1h` or `0`.
pub(super) fn duration(written: &str) -> Result<Duration, Wrong> {
    let (number, unit) = split(written);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if number.bytes().all(|byte| byte == b'0') && !number.is_empty() => 0,
        "" if !number.is_empty() => {
            return Err(Wrong::new(
                "a duration needs a unit",
                format!("write `{number}s` for seconds; units are ms, s, m and h"),
            ));
        }
        _ => return Err(no_duration(written)),
    };
    let number: u64 = number.parse().map_err(|_| no_duration(written))?;
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| {
            Wrong::new(format!("`{written}` is longer than a year"), "write less than 8760h")
        })
}

fn no_duration(written: &str) -> Wrong {
    Wrong::new(
        format!("{written:?} is not a duration"),
        "write a whole number with one unit: 250ms, 5s, 1m or 1h",
    )
}

/// Reads `4096`, `64KiB` or `1MiB`, in bytes.
pub(super) fn size(written: &str) -> Result<usize, Wrong> {
    let wrong = || {
        let fix = "write a whole number of bytes, or with a unit: 4096, 64KiB or 1MiB";
        Wrong::new(format!("{written:?} is not a size"), fix)
    };
    let (number, unit) = split(written);
    let unit: usize = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: usize = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

/// Reads a whole number.
pub(super) fn number(written: &str) -> Result<usize, Wrong> {
    let (number, unit) = split(written);
    let number = number.parse().ok().filter(|_| unit.is_empty());
    number.ok_or_else(|| {
        Wrong::new(
            format!("{written:?} is not a number"),
            "write a whole number, without a sign or a unit",
        )
    })
}

fn split(written: &str) -> (&str, &str) {
    let end = written.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(written.len());
    let (number, unit) = written.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(duration("1 m").unwrap(), Duration::from_mins(1));
        assert_eq!(duration("1h").unwrap(), Duration::from_hours(1));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        assert!(duration("5").unwrap_err().fix.contains("`5s`"));
        for wrong in [
            "",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "5 sec",
            "1h30m",
            "1S",
            "99999999999999999999s",
            "9000h",
        ] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_bytes() {
        assert_eq!(size("4096").unwrap(), 4096);
        assert_eq!(size("64KiB").unwrap(), 65536);
        assert_eq!(size("1 MiB").unwrap(), 1 << 20);
        for wrong in
            ["", "KiB", "64KB", "64k", "-1", "1.5MiB", "99999999999999999999GiB", "99999999999GiB"]
        {
            assert!(size(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_are_whole() {
        assert_eq!(number("0").unwrap(), 0);
        assert_eq!(number("100000").unwrap(), 100_000);
        for wrong in ["", "-1", "+1", "1e3", "100_000", "99999999999999999999999"] {
            assert!(number(wrong).is_err(), "{wrong:?}");
        }
    }
}
