//! What can be said, and in which languages.

use std::collections::BTreeMap;

/// Something to say.
pub(crate) struct Template {
    pub(crate) name: &'static str,
    /// English first.
    texts: &'static [(&'static str, Text)],
}

/// It in one language; `{key}` stands for a value.
pub(crate) struct Text {
    pub(crate) subject: &'static str,
    pub(crate) body: &'static str,
}

const fn text(subject: &'static str, body: &'static str) -> Text {
    Text { subject, body }
}

pub(crate) const ALL: [Template; 3] = [
    Template {
        name: "order-shipped",
        texts: &[
            (
                "en",
                text(
                    "Your order is on its way",
                    "Hello {name}, order {order} has left our house.",
                ),
            ),
            (
                "de",
                text(
                    "Ihre Bestellung ist unterwegs",
                    "Guten Tag {name}, Bestellung {order} ist unterwegs.",
                ),
            ),
            (
                "fr",
                text(
                    "Votre commande est en route",
                    "Bonjour {name}, la commande {order} est en route.",
                ),
            ),
        ],
    },
    Template {
        name: "password-reset",
        texts: &[
            (
                "en",
                text(
                    "Reset your password",
                    "Hello {name}, your code is {code}. It is good for 10 minutes.",
                ),
            ),
            (
                "de",
                text(
                    "Passwort zurücksetzen",
                    "Guten Tag {name}, Ihr Code ist {code}. Er gilt 10 Minuten.",
                ),
            ),
        ],
    },
    Template {
        name: "payment-declined",
        texts: &[(
            "en",
            text(
                "Your payment was declined",
                "Hello {name}, {amount} could not be taken: {reason}.",
            ),
        )],
    },
];

impl Template {
    /// The text in a language, or in English; `de-CH` is German.
    pub(crate) fn text(&self, locale: &str) -> &'static Text {
        let language = locale.split(['-', '_']).next().unwrap_or_default();
        let spoken = self.texts.iter().find(|(known, _)| *known == language);
        &spoken.unwrap_or(&self.texts[0]).1
    }
}

/// A text with its values, or the key that none was given for.
pub(crate) fn filled<'a>(text: &'a str, values: &BTreeMap<String, String>) -> Result<String, &'a str> {
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (key, after) = after.split_once('}').unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(values.get(key).ok_or(key)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}
