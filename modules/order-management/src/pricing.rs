//! What an order costs, in cents: items, discount, shipping, tax.

use serde::{Deserialize, Serialize};

/// Most lines of an order.
const ITEMS_MAX: usize = 100;
/// Most pieces of a line.
const QUANTITY_MAX: u64 = 1_000;
/// Dearest piece, in cents.
const UNIT_PRICE_MAX: u64 = 10_000_000;
/// Orders of this much and more ship free, in cents.
const FREE_SHIPPING_FROM: u64 = 5_000;
const SHIPPING: u64 = 495;

/// What somebody wants.
#[derive(Deserialize)]
pub(crate) struct Basket {
    pub(crate) customer: String,
    items: Vec<Item>,
    #[serde(default)]
    coupon: Option<String>,
    /// Two letters.
    country: String,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    quantity: u64,
    #[serde(rename = "unitPrice")]
    unit_price: u64,
}

/// What it costs, in cents.
#[derive(Clone, Serialize)]
pub(crate) struct Price {
    subtotal: u64,
    discount: u64,
    shipping: u64,
    tax: u64,
    total: u64,
}

impl Basket {
    /// The price, or what is wrong with the basket.
    pub(crate) fn price(&self) -> Result<Price, String> {
        if self.customer.trim().is_empty() {
            return Err("an order needs a customer".to_owned());
        }
        if !(1..=ITEMS_MAX).contains(&self.items.len()) {
            return Err(format!("an order has 1 to {ITEMS_MAX} items"));
        }
        let mut subtotal = 0;
        for item in &self.items {
            let right = (1..=QUANTITY_MAX).contains(&item.quantity) && item.unit_price <= UNIT_PRICE_MAX;
            if !right || item.sku.is_empty() {
                return Err(format!(
                    "item {:?} needs a sku, a quantity of 1 to {QUANTITY_MAX} and a price",
                    item.sku
                ));
            }
            subtotal += item.quantity * item.unit_price;
        }
        let discount = self.discount(subtotal)?;
        let goods = subtotal - discount;
        let shipping = if goods >= FREE_SHIPPING_FROM { 0 } else { SHIPPING };
        let tax = ((goods + shipping) * tax_rate(&self.country)? + 500) / 1000;
        Ok(Price {
            subtotal,
            discount,
            shipping,
            tax,
            total: goods + shipping + tax,
        })
    }

    fn discount(&self, subtotal: u64) -> Result<u64, String> {
        match self.coupon.as_deref() {
            None => Ok(0),
            Some("WELCOME10") => Ok(subtotal / 10),
            Some("FIVEOFF") => Ok(subtotal.min(500)),
            Some(other) => Err(format!("coupon {other:?} is unknown")),
        }
    }
}

/// In thousandths.
fn tax_rate(country: &str) -> Result<u64, String> {
    match country {
        "DE" => Ok(190),
        "FR" | "GB" => Ok(200),
        "CH" => Ok(81),
        "JP" => Ok(100),
        "US" => Ok(0),
        other => Err(format!("there is no delivery to {other:?}")),
    }
}
