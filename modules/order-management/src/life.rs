//! The life of an order.

use serde::Serialize;

/// Where an order is in its life.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Placed,
    Paid,
    Shipped,
    Delivered,
    Cancelled,
}

impl Status {
    /// The status after an event, or why it can't happen.
    pub(crate) fn after(self, event: &str) -> Result<Self, String> {
        match (self, event) {
            (Self::Placed, "pay") => Ok(Self::Paid),
            (Self::Paid, "ship") => Ok(Self::Shipped),
            (Self::Shipped, "deliver") => Ok(Self::Delivered),
            (Self::Placed | Self::Paid, "cancel") => Ok(Self::Cancelled),
            (now, "pay" | "ship" | "deliver" | "cancel") => {
                Err(format!("an order that is {} can't {event}", now.name()))
            }
            _ => Err(format!("{event:?} is no event; pay, ship, deliver or cancel")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        }
    }
}
