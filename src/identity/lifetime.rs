//! A length of time in whole seconds, as users write it: `1h`, `90m`, `1h30m`.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

/// A length of time in whole seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(u64);

/// A text that is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a duration: write whole hours, minutes and seconds, such as 1h, 90m or 1h30m"
)]
pub struct LifetimeError(String);

/// A hundred years. Nothing lives longer, and no sum of two overflows a [`Timestamp`].
const LONGEST: u64 = 100 * 366 * 24 * 3600;

impl Lifetime {
    /// A length of time of this many seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        assert!(seconds > 0 && seconds <= LONGEST);
        Lifetime(seconds)
    }

    /// In seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// As jiff has it.
    pub const fn as_duration(self) -> SignedDuration {
        SignedDuration::from_secs(self.0 as i64)
    }

    /// The moment this long after `start`, saturating at the end of time.
    pub fn after(self, start: Timestamp) -> Timestamp {
        start.saturating_add(self.as_duration()).unwrap_or(Timestamp::MAX)
    }

    /// The moment this long before `end`, saturating at the start of time.
    pub fn before(self, end: Timestamp) -> Timestamp {
        end.saturating_sub(self.as_duration()).unwrap_or(Timestamp::MIN)
    }
}

impl FromStr for Lifetime {
    type Err = LifetimeError;

    /// Reads `[<n>h][<n>m][<n>s]` with at least one part.
    fn from_str(text: &str) -> Result<Self, LifetimeError> {
        let error = || LifetimeError(text.to_owned());
        let mut rest = text;
        let mut total: u64 = 0;
        for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
            let Some((number, tail)) = rest.split_once(unit) else { continue };
            // Seven digits of hours are a thousand years: more than enough, and no overflow.
            if number.is_empty() || number.len() > 7 || !number.bytes().all(|b| b.is_ascii_digit())
            {
                return Err(error());
            }
            let number: u64 = number.parse().map_err(|_| error())?;
            total += number * seconds;
            rest = tail;
        }
        if !rest.is_empty() || total == 0 || total > LONGEST {
            return Err(error());
        }
        Ok(Lifetime(total))
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        for (number, unit) in [(hours, 'h'), (minutes, 'm'), (seconds, 's')] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_users_write_them() {
        for (text, seconds) in
            [("1h", 3600), ("90m", 5400), ("1h30m", 5400), ("5m", 300), ("30s", 30), ("1h1s", 3601)]
        {
            assert_eq!(text.parse(), Ok(Lifetime(seconds)), "{text}");
        }
        for text in [
            "",
            "h",
            "1",
            "1d",
            "1.5h",
            "-1h",
            "1h-5m",
            "30m1h",
            "1h 30m",
            "1h1h",
            "0s",
            "1H",
            "12345678h",
            "9999999h",
            "١h",
        ] {
            assert!(text.parse::<Lifetime>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(seconds in 1..=LONGEST) {
            let life = Lifetime(seconds);
            prop_assert_eq!(life.to_string().parse(), Ok(life));
        }

        #[test]
        fn no_text_is_too_odd(text in ".*") {
            let _ = text.parse::<Lifetime>();
        }
    }
}
