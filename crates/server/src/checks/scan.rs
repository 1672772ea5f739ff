//! Security Scan: what the release is signed with and asks for, against the policy of every environment on its way.

use hotswap_core::checks::CheckRequest;
use hotswap_core::ids::EnvName;
use hotswap_package::{Capabilities, Kind, Package};

use super::{Bench, signature};
use crate::config::Grant;

pub(super) async fn scan(bench: &Bench, request: &CheckRequest, package: &Package) -> Result<String, String> {
    let mut faults = Vec::new();
    if package.digest != request.release.digest {
        faults.push(format!(
            "the bytes are {}, not {}",
            package.digest, request.release.digest
        ));
    }
    let (hold, way) = {
        let state = bench.world.state();
        let there = request
            .release
            .under(state.values_in(&request.target, &request.module));
        let hold = state.hold(&request.module, &package.digest);
        let hold = hold.filter(|hold| hold.bars(&there)).map(|hold| {
            let word = if hold.revoked { "revoked" } else { "on hold" };
            format!("the release is {word}: {}", hold.reason)
        });
        let upto = state
            .environments
            .iter()
            .position(|environment| environment.name == request.target);
        let way = state.environments.iter().take(upto.map_or(0, |index| index + 1));
        (
            hold,
            way.map(|environment| {
                let here = state.env_module(&environment.name, &request.module);
                let values = here.and_then(|here| here.values.current());
                let given: Vec<String> = values.into_iter().flatten().map(|(key, _)| key.clone()).collect();
                (environment.name.clone(), given)
            })
            .collect::<Vec<_>>(),
        )
    };
    faults.extend(hold);
    let signed = signature::verify(bench, package)
        .await
        .map_err(|fault| faults.push(fault));
    for (environment, given) in &way {
        // What somebody gave the module there by name is granted by that.
        let mut asked = package.manifest.capabilities.clone();
        asked.environment.retain(|variable| !given.contains(variable));
        let kind = package.manifest.kind;
        faults.extend(refused(&bench.grants.get(), environment, kind, &asked));
    }
    if faults.is_empty() {
        let asks = if package.manifest.capabilities.is_empty() {
            "asks for nothing"
        } else {
            "asks for what is granted"
        };
        Ok(format!("digest verified; {}; {asks}", signed.unwrap_or_default()))
    } else {
        Err(faults.join("; "))
    }
}

/// What a module asks for and an environment doesn't grant. What isn't granted is refused.
fn refused(grants: &[Grant], environment: &EnvName, kind: Kind, asked: &Capabilities) -> Vec<String> {
    let grants: Vec<&Grant> = grants
        .iter()
        .filter(|grant| grant.environment == *environment)
        .collect();
    let granted = |lists: fn(&Grant) -> &Vec<String>, wanted: &str| {
        grants
            .iter()
            .flat_map(|grant| lists(grant))
            .any(|entry| entry == "*" || entry == wanted)
    };
    let hosts = asked
        .outbound_hosts
        .iter()
        .filter(|host| !granted(|grant| &grant.outbound_hosts, host))
        .map(|host| format!("{environment} does not grant requests to {host}"));
    let variables = asked
        .environment
        .iter()
        .filter(|variable| !granted(|grant| &grant.variables, variable))
        .map(|variable| format!("{environment} does not grant the variable {variable}"));
    let is_granted = kind == Kind::Wasm || grants.iter().any(|grant| grant.kinds.contains(&kind));
    let kind = (!is_granted).then(|| {
        format!("{environment} does not grant native code of kind {kind}; its grants.kinds must name it")
    });
    kind.into_iter().chain(hosts).chain(variables).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_granted_is_refused() {
        let qa: EnvName = "QA".parse().unwrap();
        let asked = Capabilities {
            outbound_hosts: vec!["api.example.com".to_owned(), "*.example.org".to_owned()],
            environment: vec!["REGION".to_owned()],
        };
        assert_eq!(refused(&[], &qa, Kind::Wasm, &asked).len(), 3);
        let grant = |hosts: &[&str]| Grant {
            environment: qa.clone(),
            outbound_hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            variables: vec!["REGION".to_owned()],
            kinds: Vec::new(),
        };
        assert_eq!(
            refused(&[grant(&["api.example.com"])], &qa, Kind::Wasm, &asked),
            ["QA does not grant requests to *.example.org"]
        );
        assert!(refused(&[grant(&["*"])], &qa, Kind::Wasm, &asked).is_empty());
        let staging: EnvName = "Staging".parse().unwrap();
        assert_eq!(
            refused(&[grant(&["*"])], &staging, Kind::Wasm, &asked).len(),
            3,
            "another environment's grant"
        );
        let nothing = Capabilities::default();
        assert!(refused(&[], &qa, Kind::Wasm, &nothing).is_empty());
        assert_eq!(
            refused(&[grant(&["*"])], &qa, Kind::Process, &nothing),
            ["QA does not grant native code of kind process; its grants.kinds must name it"]
        );
        let granted = Grant {
            kinds: vec![Kind::Process],
            ..grant(&[])
        };
        assert!(refused(&[granted], &qa, Kind::Process, &nothing).is_empty());
    }
}
