//! One declaration for a section's fields, their documentation and their defaults.

/// Declares a section: a struct whose fields are keys, each with its documentation and `= default`.
///
/// Attributes of a field go through; two of them mean something to this crate:
/// `#[schemars(extend("x-live" = true))]` for a key that a running process takes up when it is told to reload, and
/// `#[schemars(extend("x-secret" = true))]` for one whose value is never shown.
macro_rules! section {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* $field:ident: $type:ty = $default:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        #[schemars(extend("x-order" = [$(stringify!($field)),*]))]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

pub(crate) use section;
