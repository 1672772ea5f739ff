//! A node judges signatures itself: the table of bad ones, and what it accepted before.

use std::sync::Arc;

use bytes::Bytes;
use hotswap_agent::{Agent, AgentConfig};
use hotswap_core::ids::ModuleName;
use hotswap_core::report::ReleaseStatus;
use hotswap_core::spec::{Generation, NodeSpec};
use hotswap_package::Package;
use hotswap_runtime::{WasmHost, testing};
use hotswap_trust::Gate;
use hotswap_trust::testing::{Case, Offered, Packages, Workshop};

use crate::support::{Node, Server, host, package_of, serves};
use crate::traffic::{client, get};

const PAYMENTS: &str = "payment-processor";
/// 2020-06-01: when the signer called `expired` was not.
const BACK_THEN: &str = "1590969600";

fn packages() -> [Package; 4] {
    [
        package_of(PAYMENTS, "1.0.0", &testing::component("1.0.0")),
        package_of(PAYMENTS, "1.0.0", &testing::component("1.0.0!")),
        package_of(PAYMENTS, "1.0.1", &testing::component("1.0.0")),
        package_of("order-management", "1.0.0", &testing::component("1.0.0")),
    ]
}

fn of(packages: &[Package; 4], offered: Offered) -> &Package {
    &packages[match offered {
        Offered::Signed => 0,
        Offered::OtherArtifact => 1,
        Offered::OtherManifest => 2,
        Offered::OtherModule => 3,
    }]
}

fn spec(server: &Server, package: &Package) -> NodeSpec {
    NodeSpec {
        fleet: server.plane.fleet,
        generation: Generation { epoch: 1, seq: 1 },
        modules: [(package.manifest.name.clone(), serves(1, &[(package, 100)]))].into(),
        traces: Default::default(),
    }
}

fn node(host: &Arc<WasmHost>) -> Node {
    Node {
        dir: tempfile::tempdir().unwrap(),
        host: Arc::clone(host),
    }
}

/// What the node says of a package that it was told to serve: its failure, or what it answers.
async fn verdict(
    node: &Node,
    gate: Gate,
    package: &Package,
    signature: Option<&[u8]>,
) -> Result<String, String> {
    let server = Server::start().await;
    server.plane.add(package);
    if let Some(signature) = signature {
        server
            .plane
            .sign(package.digest, Bytes::copy_from_slice(signature));
    }
    server.plane.say(spec(&server, package));
    let config = AgentConfig {
        gate,
        ..node.config(&server.url())
    };
    let agent = Agent::start(config, Arc::clone(&node.host)).await.unwrap();
    let module: &ModuleName = &package.manifest.name;
    let failed = server
        .plane
        .until("the node's word", |plane| {
            let status = plane.status_of(module)?;
            match status.releases.get(&package.digest)? {
                ReleaseStatus::Failed { reason } => Some(Err(reason.clone())),
                _ if !status.routes.is_empty() => Some(Ok(())),
                _ => None,
            }
        })
        .await;
    let answer = match failed {
        Ok(()) => Ok(get(&client(), agent.ingress_addr(), "/ok").await.1),
        Err(reason) => Err(reason),
    };
    agent.shutdown().await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_refuses_each_bad_signature_and_compiles_nothing_of_it() {
    let (workshop, packages, host) = (Workshop::new(), packages(), host());
    let bytes = |index: usize| packages[index].file.to_vec();
    let cases = workshop.cases(&Packages {
        signed: bytes(0),
        other_artifact: bytes(1),
        other_manifest: bytes(2),
        other_module: bytes(3),
    });
    for Case {
        name,
        signature,
        offered,
        refused_by,
        ..
    } in &cases
    {
        let before = host.compilations();
        let package = of(&packages, *offered);
        let gate = Gate::signed(workshop.trust_file());
        let said = verdict(&node(&host), gate, package, Some(signature)).await;
        match (refused_by, &said) {
            (None, Ok(answer)) => assert_eq!(answer, "1.0.0", "{name}"),
            (Some(check), Err(reason)) => {
                assert!(
                    reason.contains(&format!("[{}]", check.code())),
                    "{name}: {reason}"
                );
                assert_eq!(host.compilations(), before, "{name}: something was compiled");
            }
            _ => panic!("{name}: {said:?}"),
        }
        println!(
            "{name:34} {}",
            said.map_or_else(|reason| reason, |_| "accepted and served".to_owned())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_signature_nothing_runs_unless_that_is_allowed_here() {
    let (workshop, packages, host) = (Workshop::new(), packages(), host());
    let good = workshop.sign(&packages[0].file, "signer", &[]);
    let strict = || Gate::signed(workshop.trust_file());
    let refused = verdict(&node(&host), strict(), &packages[0], None)
        .await
        .unwrap_err();
    assert!(refused.contains("[unsigned]"), "{refused}");
    let refused = verdict(&node(&host), Gate::default(), &packages[0], Some(&good)).await;
    let refused = refused.unwrap_err();
    assert!(
        refused.contains("[no_roots]") && refused.contains("--trust"),
        "{refused}"
    );
    let lax = Gate::default().allowing_unsigned();
    assert_eq!(
        verdict(&node(&host), lax, &packages[0], None).await.unwrap(),
        "1.0.0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_its_certificate_expired_still_runs() {
    let (workshop, packages, host) = (Workshop::new(), packages(), host());
    let package = &packages[0];
    let signature = workshop.sign(&package.file, "expired", &[]);
    // Without the revocation lists, which are of today.
    let trust_file = workshop.path("roots-only.toml");
    std::fs::write(&trust_file, "roots = [\"root/ca.pem\"]\n").unwrap();
    let gate = || Gate::signed(&trust_file);
    let fresh = node(&host);
    let refused = verdict(&fresh, gate(), package, Some(&signature))
        .await
        .unwrap_err();
    assert!(refused.contains("[certificate_expired]"), "{refused}");

    let kept = node(&host);
    let folder = kept.dir.path().join("packages");
    std::fs::create_dir_all(&folder).unwrap();
    let file = |extension: &str| folder.join(format!("{}.{extension}", package.digest.hex()));
    std::fs::write(file("hsm"), &package.file).unwrap();
    std::fs::write(file("p7s"), &signature).unwrap();
    std::fs::write(file("accepted"), BACK_THEN).unwrap();
    assert_eq!(verdict(&kept, gate(), package, None).await.unwrap(), "1.0.0");
    // Tampering with what is kept doesn't help, and the server has no better one.
    let mut tampered = signature.clone();
    *tampered.last_mut().unwrap() ^= 1;
    let other = node(&host);
    let folder = other.dir.path().join("packages");
    std::fs::create_dir_all(&folder).unwrap();
    for (extension, content) in [
        ("hsm", &package.file[..]),
        ("p7s", &tampered),
        ("accepted", BACK_THEN.as_bytes()),
    ] {
        std::fs::write(
            folder.join(format!("{}.{extension}", package.digest.hex())),
            content,
        )
        .unwrap();
    }
    let refused = verdict(&other, gate(), package, None).await.unwrap_err();
    assert!(refused.contains("[signature_invalid]"), "{refused}");
}
