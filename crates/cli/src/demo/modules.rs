//! The example modules, in the binary: the demo runs anywhere.

use hotswap_package::{Package, PackageError};

macro_rules! example {
    ($name:literal, $version:literal) => {
        (
            include_bytes!(concat!(
                "../../../../modules/",
                $name,
                "/",
                $version,
                "/module.toml"
            ))
            .as_slice(),
            include_bytes!(concat!(
                "../../../../modules/",
                $name,
                "/",
                $version,
                "/",
                $name,
                ".wasm"
            ))
            .as_slice(),
        )
    };
}

/// Manifest and artifact of each.
const EXAMPLES: [(&[u8], &[u8]); 8] = [
    example!("payment-processor", "2.0.0"),
    example!("payment-processor", "2.1.0"),
    example!("payment-processor", "2.2.0"),
    example!("authentication-service", "1.0.0"),
    example!("order-management", "3.0.0"),
    example!("recommendation-engine", "4.5.2"),
    example!("user-notification-service", "2.3.1"),
    example!("smoke-test-module", "1.0.0"),
];

/// The packages, as `hotswap module pack` would write them.
///
/// # Errors
/// An example that is no package: the build was made of broken files.
pub(crate) fn packages() -> Result<Vec<Package>, PackageError> {
    EXAMPLES
        .iter()
        .map(|(manifest, artifact)| Package::assemble(manifest, artifact))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_example_is_a_package() {
        let packages = super::packages().expect("the examples are packages");
        assert_eq!(packages.len(), 8);
    }
}
