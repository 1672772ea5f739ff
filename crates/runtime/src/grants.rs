//! What a host lets modules use. What isn't granted is denied, whatever a manifest asks for.

use std::collections::BTreeMap;

use hotswap_package::Capabilities;

/// What a host grants. By default nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Grants {
    /// Hosts that modules may send requests to, as manifests write them; `*` is any host.
    pub outbound_hosts: Vec<String>,
    /// Environment variables that modules may read, with their values.
    pub variables: BTreeMap<String, String>,
}

/// What becomes of a release that asks for more than the host grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ungranted {
    /// It isn't prepared, so that the deployment says why.
    #[default]
    Refuse,
    /// It is, and finds nothing of what it asks for: a trial in a sandbox.
    Withhold,
}

impl Grants {
    /// The hosts that a module asks for and doesn't get, each as a sentence's part.
    pub fn missing_hosts(&self, asked: &Capabilities) -> Vec<String> {
        let hosts = asked.outbound_hosts.iter().filter(|host| {
            let mut granted = self.outbound_hosts.iter();
            !granted.any(|granted| granted == "*" || granted == *host)
        });
        hosts.map(|host| format!("requests to {host}")).collect()
    }

    /// The variables that a module asks for and finds neither here nor among its values, each as a sentence's part.
    pub fn missing_variables(&self, asked: &Capabilities, values: &BTreeMap<String, String>) -> Vec<String> {
        let missing = asked
            .environment
            .iter()
            .filter(|variable| !self.variables.contains_key(*variable) && !values.contains_key(*variable));
        missing
            .map(|variable| format!("the variable {variable}"))
            .collect()
    }
}
