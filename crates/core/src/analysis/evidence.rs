//! E-values as they are kept: in range, and exact through any serialisation.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// E-values are kept within these: below, none comes back; above, every threshold is long passed.
const E_MIN: f64 = 1e-280;
const E_MAX: f64 = 1e280;

/// A non-negative finite number that survives JSON bit for bit: it is written as the integer of its bits, since
/// text formats may round, and a judge that was restored must equal the one that was saved.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Exact(f64);

impl Exact {
    pub(super) const ZERO: Self = Self(0.0);
    pub(super) const ONE: Self = Self(1.0);

    pub(super) fn new(value: f64) -> Self {
        Self(if value.is_finite() { value.max(0.0) } else { 0.0 })
    }

    pub(super) fn get(self) -> f64 {
        self.0
    }

    /// Multiplies an e-value by e^`log_factor`.
    pub(super) fn multiply(&mut self, log_factor: f64) {
        if log_factor != 0.0 && self.0 > 0.0 {
            // A factor beyond a double's range goes through logarithms.
            let product = if log_factor.abs() < 600.0 {
                self.0 * log_factor.exp()
            } else {
                (self.0.ln() + log_factor).min(600.0).exp()
            };
            self.0 = product.clamp(E_MIN, E_MAX);
        }
    }

    /// Adds a non-negative number.
    pub(super) fn add(&mut self, value: f64) {
        *self = Self::new((self.0 + value).min(E_MAX));
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_bits().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|bits| Self::new(f64::from_bits(bits)))
    }
}

/// An e-value as log10 with three decimals: short enough a decimal to survive JSON.
pub(super) fn log10(e: f64) -> f64 {
    rounded(e.max(E_MIN).log10())
}

/// Three decimals.
pub(super) fn rounded(value: f64) -> f64 {
    // Adding 0 turns −0 into 0.
    (value * 1e3).round() / 1e3 + 0.0
}
