//! What the tests share: hosts, objects that are compiled here, control groups of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotswap_package::pack;
use hotswap_runtime::testing::namespace::{Wire, sh};
use hotswap_runtime::{
    Artifact, EbpfHost, EbpfHostConfig, Grants, Instance, Launch, Runtime as _, StartError,
};

pub(crate) const NODE: &str = "edge-1.example";
pub(crate) const PINS: &str = "/sys/fs/bpf/hotswap/edge-1+example/packet-limiter";
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn example(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../modules/ebpf/packet-limiter")
        .join(version)
}

pub(crate) fn artifact(version: &str) -> Artifact {
    pack(&example(version)).unwrap().into()
}

pub(crate) fn host(wire: &Wire) -> EbpfHost {
    let grants = Grants {
        variables: [("UPLINK".to_owned(), wire.name.clone())].into(),
        ..Grants::default()
    };
    EbpfHost::new(EbpfHostConfig::new(grants)).unwrap()
}

pub(crate) async fn started(host: &EbpfHost, artifact: Artifact) -> Result<Arc<dyn Instance>, StartError> {
    let prepared = host.prepare(artifact).await.unwrap();
    prepared
        .start(Launch {
            node: Some(NODE.to_owned()),
            ..Launch::default()
        })
        .await
}

pub(crate) async fn gone(instances: &[&Arc<dyn Instance>]) {
    for instance in instances {
        instance.dismiss();
        instance.close(Duration::ZERO).await;
    }
    assert!(!Path::new(PINS).exists(), "{}", sh(&format!("find {PINS}")));
    assert!(!Path::new("/sys/fs/bpf/hotswap").exists());
}

pub(crate) fn counted(instance: &Arc<dyn Instance>) -> u64 {
    instance.tally().unwrap().requests
}

#[track_caller]
pub(crate) fn eventually(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A host that grants nothing.
pub(crate) fn bare_host() -> EbpfHost {
    EbpfHost::new(EbpfHostConfig::new(Grants::default())).unwrap()
}

/// A release of an object that is compiled here, or nothing where there is no compiler. `ebpf` is what follows
/// `[ebpf]` in its manifest.
pub(crate) fn release(version: &str, ebpf: &str, source: &str, defines: &[&str]) -> Option<Artifact> {
    let dir = tempfile::tempdir().unwrap();
    let headers = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n#include <bpf/bpf_endian.h>\n";
    let license = "char LICENSE[] SEC(\"license\") = \"GPL\";\n";
    std::fs::write(dir.path().join("look.bpf.c"), [headers, source, license].concat()).unwrap();
    let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let ran = ["clang-14", "clang"].into_iter().find_map(|clang| {
        let mut command = Command::new(clang);
        command.args(["-O2", "-g", "-target", "bpf", &include]);
        command.args(["-c", "look.bpf.c", "-o", "look.o"]);
        command.args(defines.iter().map(|define| format!("-D{define}")));
        command.current_dir(dir.path()).output().ok()
    });
    let has_headers = Path::new("/usr/include/bpf/bpf_helpers.h").exists();
    let Some(ran) = ran.filter(|_| has_headers) else {
        println!("left out: objects of this test's own, which need clang and libbpf's headers");
        return None;
    };
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let manifest = format!(
        "name = \"packet-limiter\"\nversion = \"{version}\"\nkind = \"ebpf\"\nentry = \"look.o\"\n[ebpf]\n{ebpf}"
    );
    std::fs::write(dir.path().join("module.toml"), manifest).unwrap();
    Some(pack(dir.path()).unwrap().into())
}

/// A control group (version 2) of a test's own, which this process is in.
pub(crate) struct Group {
    root: &'static str,
    pub(crate) path: String,
}

impl Group {
    /// None where no control group can be made.
    pub(crate) fn new() -> Option<Self> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let root = roots
            .into_iter()
            .find(|path| Path::new(path).join("cgroup.controllers").exists());
        let group = root.map(|root| Self {
            root,
            path: format!("{root}/hotswap-test-{}", std::process::id()),
        });
        let Some(group) = group.filter(|group| std::fs::create_dir(&group.path).is_ok()) else {
            println!("left out: hooks of control groups, which need one (version 2) that can be made");
            return None;
        };
        group.enter(&group.path);
        Some(group)
    }

    fn enter(&self, path: &str) {
        std::fs::write(format!("{path}/cgroup.procs"), std::process::id().to_string()).unwrap();
    }

    /// Leaves the group and removes it.
    pub(crate) fn remove(&self) {
        self.enter(self.root);
        std::fs::remove_dir(&self.path).unwrap();
    }

    /// Makes it again, and enters it.
    pub(crate) fn make_again(&self) {
        std::fs::create_dir(&self.path).unwrap();
        self.enter(&self.path);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if Path::new(&self.path).exists() {
            self.enter(self.root);
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}
