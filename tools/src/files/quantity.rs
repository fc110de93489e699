//! Durations, sizes and money as people write them, read exactly: no fraction ever passes through a float.

use std::fmt;

/// A duration in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub u64);

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// An amount of money in micro-USD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd(pub u64);

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// A number without a unit.
    #[error("it has no unit")]
    NoUnit,
    /// A percentage: of what, is never clear enough.
    #[error("percentages are refused")]
    Percent,
    /// A unit that nobody knows.
    #[error("its unit is not known")]
    BadUnit,
    /// Units out of order or twice.
    #[error("its units are not in falling order, each once")]
    Order,
    /// Not a number.
    #[error("it is not a number")]
    BadNumber,
    /// More digits than the smallest unit has.
    #[error("it is finer than the smallest unit")]
    TooFine,
    /// More than fits.
    #[error("it is too large")]
    TooLarge,
}

const DURATION_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

const SIZE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

const MICRO: u64 = 1_000_000;

impl Duration {
    /// Reads `90s`, `1h30m`, `250ms`.
    pub fn parse(text: &str) -> Result<Duration, QuantityError> {
        let mut rest = checked(text)?;
        let mut units = DURATION_UNITS.iter();
        let mut total = 0u64;
        while !rest.is_empty() {
            let (number, after) = split_number(rest)?;
            let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
            let known = DURATION_UNITS.iter().any(|(name, _)| *name == unit);
            let factor = match units.find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None if unit.is_empty() => return Err(QuantityError::NoUnit),
                None if known => return Err(QuantityError::Order),
                None => return Err(QuantityError::BadUnit),
            };
            total = exact(number, factor)?.checked_add(total).ok_or(QuantityError::TooLarge)?;
            rest = after;
        }
        Ok(Duration(total))
    }
}

impl Size {
    /// Reads `512MB` (millions), `128MiB` (2²⁰), `1.5GiB`.
    pub fn parse(text: &str) -> Result<Size, QuantityError> {
        let (number, unit) = split_number(checked(text)?)?;
        if unit.is_empty() {
            return Err(QuantityError::NoUnit);
        }
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(QuantityError::BadUnit)?;
        exact(number, *factor).map(Size)
    }
}

impl Usd {
    /// Reads `0.50`, with at most six places.
    pub fn parse(text: &str) -> Result<Usd, QuantityError> {
        let (number, rest) = split_number(checked(text)?)?;
        if !rest.is_empty() {
            return Err(QuantityError::BadUnit);
        }
        exact(number, MICRO).map(Usd)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (unit, factor) in DURATION_UNITS {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        if self.0 == 0 { f.write_str("0s") } else { Ok(()) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZE_UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:06}", self.0 % MICRO);
        let places = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{}.{}", self.0 / MICRO, &fraction[..places])
    }
}

fn checked(text: &str) -> Result<&str, QuantityError> {
    match text {
        "" => Err(QuantityError::Empty),
        text if text.ends_with('%') => Err(QuantityError::Percent),
        text => Ok(text),
    }
}

/// The number at the beginning, as whole digits and digits of a fraction, and what follows.
fn split_number(text: &str) -> Result<((&str, &str), &str), QuantityError> {
    let (whole, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let Some(after) = rest.strip_prefix('.') else {
        return if whole.is_empty() { Err(QuantityError::BadNumber) } else { Ok(((whole, ""), rest)) };
    };
    let (fraction, rest) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
    if whole.is_empty() || fraction.is_empty() {
        return Err(QuantityError::BadNumber);
    }
    Ok(((whole, fraction), rest))
}

/// `number × factor`, which must be whole.
fn exact((whole, fraction): (&str, &str), factor: u64) -> Result<u64, QuantityError> {
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 18 {
        return Err(QuantityError::TooFine);
    }
    let digits = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u64>() };
    let whole = digits(whole).map_err(|_| QuantityError::TooLarge)?;
    let part = u128::from(digits(fraction).map_err(|_| QuantityError::TooFine)?) * u128::from(factor);
    let scale = 10u128.pow(fraction.len().try_into().unwrap_or(u32::MAX));
    if !part.is_multiple_of(scale) {
        return Err(QuantityError::TooFine);
    }
    let total = u128::from(whole) * u128::from(factor) + part / scale;
    total.try_into().map_err(|_| QuantityError::TooLarge)
}
