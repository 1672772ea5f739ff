//! Fees by issuer: each bank has its own rate, and fees are whole cents.

use crate::card::Card;
use crate::currency::Currency;

/// Rates of issuers that have one of their own.
const ISSUERS: usize = 512;
/// In hundred-thousandths: what every other issuer pays.
const RATE: u64 = 2_900;
const SCALE: u64 = 100_000;

/// A range of issuer numbers with one rate.
#[derive(Clone, Copy)]
struct Range {
    first: u32,
    last: u32,
    rate: u64,
}

/// The fee in minor units; nothing where the amount is beyond reckoning.
pub(crate) fn fee(amount: u64, currency: &Currency, card: &Card) -> Option<u64> {
    let rate = rate_of(&rates(), card.issuer());
    let share = amount.checked_mul(rate)?.checked_add(SCALE / 2)? / SCALE;
    let fee = share.checked_add(currency.fixed_fee)?;
    // Fees are settled in whole cents, so what a currency's minor unit has below a cent is rounded off.
    let cent = currency.minor(1) / 100;
    Some(fee - fee.checked_rem(cent)?)
}

/// The rate table as the settlement bank publishes it: a list of ranges, in order of publication.
fn rates() -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::with_capacity(ISSUERS);
    let mut number: u32 = 1;
    for _ in 0..ISSUERS {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let first = 200_000 + (number >> 8) % 399_000;
        let rate = RATE - u64::from(number >> 24);
        let range = Range {
            first,
            last: first + 40,
            rate,
        };
        // Later publications win over earlier ones that they overlap.
        ranges.retain(|earlier| earlier.last < range.first || range.last < earlier.first);
        ranges.push(range);
    }
    ranges.sort_unstable_by_key(|range| range.first);
    ranges
}

fn rate_of(ranges: &[Range], issuer: u32) -> u64 {
    let at = ranges.partition_point(|range| range.last < issuer);
    ranges
        .get(at)
        .filter(|range| range.first <= issuer)
        .map_or(RATE, |range| range.rate)
}
