//! The ways of versions through a kernel that is a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hotswap_core::ids::Digest;
use hotswap_package::Manifest;

use super::config::KernelHostConfig;
use super::host::KernelHost;
use super::object::inspect;
use super::record::{Active, Record};
use super::swap::{Place, Version};
use super::system::System;
use crate::kind::{Artifact, Instance, Launch, Prepared, Readiness, Runtime as _};

const RELEASE: &str = "6.1.0-test";
const GATE: &str = "gate";

/// A folder with a kernel's files, and what modules do when they are loaded.
#[derive(Debug)]
struct Fake {
    root: PathBuf,
    /// What the next load of a module comes to, by its name.
    errors: Mutex<BTreeMap<String, i32>>,
    /// Livepatches whose transition doesn't end by itself.
    stalls: Mutex<Vec<String>>,
    /// Modules that somebody uses, whatever happens.
    held: Mutex<Vec<String>>,
    /// Modules whose loads don't come back before they are let go on.
    hangs: Mutex<BTreeSet<String>>,
    goes_on: Condvar,
    /// Modules whose loads panic.
    panics: Mutex<Vec<String>>,
    calls: Mutex<Vec<String>>,
}

impl Fake {
    fn new(root: &Path, boot: &str) -> Arc<Self> {
        let fake = Arc::new(Self {
            root: root.to_owned(),
            errors: Mutex::default(),
            stalls: Mutex::default(),
            held: Mutex::default(),
            panics: Mutex::default(),
            hangs: Mutex::default(),
            goes_on: Condvar::new(),
            calls: Mutex::default(),
        });
        fake.set("/proc/sys/kernel/osrelease", RELEASE);
        fake.set("/proc/sys/kernel/random/boot_id", boot);
        fake.set("/proc/sys/kernel/tainted", "0");
        fake
    }

    fn set(&self, path: &str, text: &str) {
        let path = self.root.join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn get(&self, path: &str) -> String {
        let text = fs::read_to_string(self.root.join(&path[1..])).unwrap_or_default();
        text.trim_end().to_owned()
    }

    fn modules(&self) -> Vec<String> {
        let dir = fs::read_dir(self.root.join("sys/module")).into_iter().flatten();
        let mut names: Vec<String> = dir
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn fail(&self, module: &str, error: i32) {
        self.errors.lock().unwrap().insert(module.to_owned(), error);
    }

    /// What has been loaded and unloaded since this was asked last.
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// A gate whose calls go to nobody yet.
    fn with_gate(self: &Arc<Self>) {
        self.set(&format!("/sys/module/{GATE}/refcnt"), "0");
        self.set(&format!("/sys/module/{GATE}/parameters/active"), "");
        self.set(&format!("/sys/module/{GATE}/parameters/vacate"), "");
    }

    /// The next loads of a module don't come back.
    fn hang(&self, module: &str) {
        self.hangs.lock().unwrap().insert(module.to_owned());
    }

    fn go_on(&self) {
        self.hangs.lock().unwrap().clear();
        self.goes_on.notify_all();
    }

    fn refcnt(&self, module: &str, count: &str) {
        self.set(&format!("/sys/module/{module}/refcnt"), count);
    }

    /// One user less: none is left, unless somebody holds it.
    fn let_go(&self, module: &str) {
        let is_held = self.held.lock().unwrap().iter().any(|held| held == module);
        self.refcnt(module, if is_held { "1" } else { "0" });
    }

    /// What a kernel does when its files are written to.
    fn settle(&self) {
        for patch in fs::read_dir(self.root.join("sys/kernel/livepatch"))
            .into_iter()
            .flatten()
        {
            let dir = patch.unwrap().path();
            if fs::read_to_string(dir.join("enabled")).is_ok_and(|enabled| enabled.trim() == "0") {
                fs::remove_dir_all(&dir).unwrap();
            }
        }
        let vacate = format!("/sys/module/{GATE}/parameters/vacate");
        let gone = self.get(&vacate);
        if !gone.is_empty() {
            self.set(&vacate, "");
            self.calls.lock().unwrap().push(format!("vacate {gone}"));
            self.set(&format!("/sys/module/{GATE}/parameters/active"), "");
            self.let_go(&gone);
        }
    }
}

impl System for Fake {
    fn load(&self, file: &Path, parameters: &str) -> io::Result<()> {
        let content = fs::read(file)?;
        let text = String::from_utf8_lossy(&content);
        let name = text.split("name=").nth(1).unwrap().split('\0').next().unwrap();
        self.calls
            .lock()
            .unwrap()
            .push(format!("+{name} {parameters}").trim_end().to_owned());
        let hangs = self.hangs.lock().unwrap();
        drop(
            self.goes_on
                .wait_while(hangs, |hangs| hangs.contains(name))
                .unwrap(),
        );
        let panics = self.panics.lock().unwrap().iter().any(|panics| panics == name);
        assert!(!panics, "as a bug of the agent's would");
        if let Some(error) = self.errors.lock().unwrap().remove(name) {
            return Err(io::Error::from_raw_os_error(error));
        }
        self.let_go(name);
        self.set(&format!("/sys/module/{name}/parameters/requests"), "0");
        if text.contains("livepatch=Y") {
            let stalls = self.stalls.lock().unwrap().iter().any(|stalls| stalls == name);
            self.set(&format!("/sys/kernel/livepatch/{name}/enabled"), "1");
            let transition = if stalls { "1" } else { "0" };
            self.set(&format!("/sys/kernel/livepatch/{name}/transition"), transition);
            self.set("/proc/7/patch_state", "0");
            self.set("/proc/7/comm", "sleeper");
        }
        if text.contains(&format!("depends={GATE}")) {
            let active = format!("/sys/module/{GATE}/parameters/active");
            let former = self.get(&active);
            if !former.is_empty() {
                self.let_go(&former);
            }
            self.refcnt(name, "1");
            self.set(&active, name);
        }
        Ok(())
    }

    fn unload(&self, module: &str) -> io::Result<()> {
        self.calls.lock().unwrap().push(format!("-{module}"));
        let dir = self.root.join("sys/module").join(module);
        if self.get(&format!("/sys/module/{module}/refcnt")) != "0" {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        fs::remove_dir_all(dir)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.settle();
        self.root.join(&path[1..])
    }
}

/// An ELF file with nothing but what a module says of itself.
fn ko(info: &[&str]) -> Vec<u8> {
    let info: String = info.iter().map(|entry| format!("{entry}\0")).collect();
    let names = b"\0.modinfo\0.shstrtab\0";
    let (info_at, names_at) = (64, 64 + info.len());
    let sections_at = (names_at + names.len()).next_multiple_of(8);
    let mut file = vec![0; sections_at + 3 * 64];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &1u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(40, &(sections_at as u64).to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(58, &64u16.to_le_bytes());
    put(60, &3u16.to_le_bytes());
    put(62, &2u16.to_le_bytes());
    put(info_at, info.as_bytes());
    put(names_at, names);
    for (number, name, kind, at, size) in [
        (1, 1u32, 1u32, info_at, info.len()),
        (2, 10, 3, names_at, names.len()),
    ] {
        let header = sections_at + number * 64;
        put(header, &name.to_le_bytes());
        put(header + 4, &kind.to_le_bytes());
        put(header + 24, &(at as u64).to_le_bytes());
        put(header + 32, &(size as u64).to_le_bytes());
        put(header + 48, &1u64.to_le_bytes());
    }
    file
}

/// A module's package: its manifest's part and what its file says.
fn artifact(version: &str, module: &str, kernel: &str, info: &[&str]) -> Artifact {
    let manifest = format!(
        "name = \"filter\"\nversion = \"{version}\"\nkind = \"kernel\"\nentry = \"builds.tar\"\n[kernel]\nmodule = \
         \"{module}\"\ndeadline = \"100ms\"\n{kernel}\n[[kernel.builds]]\nrelease = \"{RELEASE}\"\nfile = \"x.ko\"\n"
    );
    let manifest = Manifest::parse(&manifest).unwrap();
    let name = format!("name={module}");
    let vermagic = format!("vermagic={RELEASE} SMP mod_unload");
    let info = [&["license=GPL", &name, &vermagic], info].concat();
    let content = manifest
        .kernel
        .as_ref()
        .unwrap()
        .artifact(&[Bytes::from(ko(&info))]);
    let version: Vec<u8> = version.bytes().collect();
    let mut digest = [0; 32];
    digest[..version.len()].copy_from_slice(&version);
    Artifact {
        digest: Digest(digest),
        manifest: Arc::new(manifest),
        content: Bytes::from(content.unwrap()),
    }
}

fn plain(version: &str) -> Artifact {
    let counters = "[[kernel.counters]]\ncounts = \"requests\"\nfile = \"parameters/requests\"";
    artifact(
        version,
        "plain",
        &format!("parameters = {{ v = \"{version}\" }}\n{counters}"),
        &[],
    )
}

/// Another module's.
fn named(name: &str, mut artifact: Artifact) -> Artifact {
    let mut manifest = (*artifact.manifest).clone();
    manifest.name = name.parse().unwrap();
    artifact.manifest = Arc::new(manifest);
    artifact
}

fn gated(version: &str) -> Artifact {
    let module = format!("impl_{}", version.replace('.', "_"));
    let depends = format!("depends={GATE}");
    artifact(
        version,
        &module,
        "style = \"gated\"\ngate = \"gate\"",
        &[&depends],
    )
}

fn patch(version: &str) -> Artifact {
    let module = format!("patch_{}", version.replace('.', "_"));
    artifact(version, &module, "style = \"livepatch\"", &["livepatch=Y"])
}

struct Node {
    fake: Arc<Fake>,
    host: KernelHost,
    _dir: Option<tempfile::TempDir>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            _dir: None,
            ..Self::boot(dir.path(), "a")
        }
        .keep(dir)
    }

    fn keep(mut self, dir: tempfile::TempDir) -> Self {
        self._dir = Some(dir);
        self
    }

    fn boot(dir: &Path, boot: &str) -> Self {
        let fake = Fake::new(&dir.join("root"), boot);
        let host = KernelHost::with(KernelHostConfig::new(dir.join("kernel")), fake.clone());
        Self {
            host: host.unwrap(),
            fake,
            _dir: None,
        }
    }

    async fn start(&self, artifact: Artifact) -> Result<Arc<dyn Instance>, String> {
        let prepared = self
            .host
            .prepare(artifact)
            .await
            .map_err(|error| error.to_string())?;
        let launch = Launch {
            node: Some("node-1".to_owned()),
            ..Launch::default()
        };
        Prepared::start(&*prepared, launch)
            .await
            .map_err(|error| error.to_string())
    }

    async fn engaged(&self, artifact: Artifact) -> Arc<dyn Instance> {
        let instance = self.start(artifact).await.unwrap();
        engage(&instance).await;
        instance
    }
}

async fn engage(instance: &Arc<dyn Instance>) {
    if let Some(engaged) = instance.engage() {
        engaged.await;
    }
}

/// What is looked at beside everything else comes to this.
async fn eventually(instance: &Arc<dyn Instance>, is: impl Fn(&Readiness) -> bool) {
    let comes = async {
        loop {
            instance.tally();
            if is(&instance.readiness()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let came = tokio::time::timeout(Duration::from_secs(30), comes).await;
    assert!(came.is_ok(), "it is {:?}", instance.readiness());
}

async fn is_well(instance: &Arc<dyn Instance>) {
    eventually(instance, |readiness| *readiness == Readiness::Ready).await;
}

async fn fails(instance: &Arc<dyn Instance>, because: &[&str]) {
    eventually(instance, |readiness| match readiness {
        Readiness::Failing(reason) => because.iter().all(|part| reason.contains(part)),
        _ => false,
    })
    .await;
}

async fn counts(instance: &Arc<dyn Instance>, requests: u64) {
    let counted = async {
        while instance.tally().unwrap().requests != requests {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), counted)
        .await
        .unwrap();
}

async fn dismissed(instance: &Arc<dyn Instance>) {
    instance.dismiss();
    instance.close(Duration::ZERO).await;
}

#[tokio::test]
async fn a_plain_version_goes_before_the_next_one_comes_and_back_where_it_fails() {
    let node = Node::new();
    let one = node.engaged(plain("1.0.0")).await;
    is_well(&one).await;
    assert_eq!(node.fake.calls(), ["+plain v=1.0.0"]);
    node.fake.set("/sys/module/plain/parameters/requests", "5");
    counts(&one, 5).await;
    let two = node.engaged(plain("1.1.0")).await;
    is_well(&two).await;
    assert_eq!(node.fake.calls(), ["-plain", "+plain v=1.1.0"]);
    assert_eq!(
        one.tally().unwrap().requests,
        5,
        "what it counted while it was there"
    );

    node.fake.fail("plain", libc::EKEYREJECTED);
    let three = node.engaged(plain("1.2.0")).await;
    fails(
        &three,
        &[
            "plain 1.2.0 could not be loaded",
            "loads only modules with a signature",
            "1.1.0 is loaded again",
        ],
    )
    .await;
    assert_eq!(node.fake.calls(), ["-plain", "+plain v=1.2.0", "+plain v=1.1.0"]);
    engage(&two).await;
    is_well(&two).await;
    assert!(node.fake.calls().is_empty(), "it is there");

    node.fake.refcnt("plain", "2");
    node.fake.set("/sys/module/plain/holders/user_of_it/x", "");
    let four = node.engaged(plain("1.3.0")).await;
    fails(&four, &["1.1.0 is in use", "2 use(s), of modules user_of_it"]).await;
    assert!(node.fake.calls().is_empty(), "nothing was touched");
    node.fake.refcnt("plain", "0");
    for instance in [&four, &three, &one] {
        dismissed(instance).await;
    }
    assert_eq!(node.fake.modules(), ["plain"]);
    dismissed(&two).await;
    assert!(node.fake.modules().is_empty());
}

#[tokio::test]
async fn behind_a_gate_the_next_one_comes_first_and_back_the_former_takes_its_place_again() {
    let node = Node::new();
    let one = node.engaged(gated("1.0.0")).await;
    fails(&one, &["needs modules that are not loaded: gate"]).await;
    node.fake.with_gate();
    is_well(&one).await;
    let two = node.engaged(gated("1.1.0")).await;
    is_well(&two).await;
    assert_eq!(node.fake.calls(), ["+impl_1_0_0", "+impl_1_1_0", "-impl_1_0_0"]);
    engage(&one).await;
    is_well(&one).await;
    assert_eq!(node.fake.calls(), ["+impl_1_0_0", "-impl_1_1_0"]);

    let check =
        "style = \"gated\"\ngate = \"gate\"\n[[kernel.checks]]\nfile = \"parameters/requests\"\nat-least = 1";
    let depends = format!("depends={GATE}");
    let ill = node
        .engaged(artifact("1.2.0", "impl_ill", check, &[&depends]))
        .await;
    fails(
        &ill,
        &[
            "impl_ill 1.2.0 was loaded, and",
            "says 0; it should be at least 1",
        ],
    )
    .await;
    assert_eq!(
        node.fake.calls(),
        ["+impl_ill", "-impl_1_0_0", "+impl_1_0_0", "-impl_ill"],
        "somebody is at the gate all the time"
    );
    let same = node
        .engaged(artifact(
            "1.3.0",
            "impl_1_0_0",
            "style = \"gated\"\ngate = \"gate\"",
            &[],
        ))
        .await;
    fails(&same, &["each needs a name of its own"]).await;
    dismissed(&one).await;
    assert_eq!(node.fake.modules(), [GATE], "the gate let go of it");
}

#[tokio::test]
async fn a_livepatch_that_stalls_is_reversed_and_one_that_somebody_disables_is_told() {
    let node = Node::new();
    let one = node.engaged(patch("1.0.0")).await;
    is_well(&one).await;
    node.fake.stalls.lock().unwrap().push("patch_1_1_0".to_owned());
    let two = node.engaged(patch("1.1.0")).await;
    fails(
        &two,
        &[
            "transition was not over after 1",
            "held up by sleeper (7)",
            "it was reversed within",
        ],
    )
    .await;
    assert_eq!(node.fake.modules(), ["patch_1_0_0"]);
    let three = node.engaged(patch("1.2.0")).await;
    is_well(&three).await;
    assert_eq!(node.fake.modules(), ["patch_1_2_0"]);
    node.fake.set("/sys/kernel/livepatch/patch_1_2_0/enabled", "0");
    fails(&three, &["somebody disabled it"]).await;
    dismissed(&three).await;
    assert!(node.fake.modules().is_empty());
}

#[tokio::test]
async fn what_is_loaded_outlives_the_agent_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let before = Node::boot(dir.path(), "a");
    let one = before.engaged(plain("1.0.0")).await;
    is_well(&one).await;
    one.close(Duration::ZERO).await;
    let after = Node::boot(dir.path(), "a");
    let again = after.engaged(plain("1.0.0")).await;
    is_well(&again).await;
    assert!(after.fake.calls().is_empty());
    // Somebody else's module of that name is not ours to unload.
    let other = Node::new();
    other.fake.refcnt("plain", "0");
    let one = other.engaged(plain("1.0.0")).await;
    fails(&one, &["loaded already, and not by Hotswap"]).await;
    assert!(other.fake.calls().is_empty());
}

/// The record of a module that is a node's only one.
fn record(dir: &tempfile::TempDir) -> serde_json::Value {
    let text = fs::read_to_string(dir.path().join("kernel/filter/record.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_load_that_was_interrupted_and_is_found_in_place_is_noted_and_watched() {
    let dir = tempfile::tempdir().unwrap();
    let before = Node::boot(dir.path(), "a");
    let one = before.engaged(plain("1.0.0")).await;
    is_well(&one).await;
    let mut killed = record(&dir);
    assert_eq!(killed["attempt"]["label"], "1.0.0");
    killed["active"] = serde_json::Value::Null;
    fs::write(dir.path().join("kernel/filter/record.json"), killed.to_string()).unwrap();
    drop((one, before));
    let after = Node::boot(dir.path(), "a");
    let back = after.engaged(plain("1.0.0")).await;
    is_well(&back).await;
    assert!(after.fake.calls().is_empty(), "it is there");
    let noted = record(&dir);
    assert_eq!(noted["active"]["label"], "1.0.0", "its load was heard of");
    assert_eq!(noted["attempt"]["label"], "1.0.0", "it has not stood yet");
    // In order, and weeks later a reboot: nobody is to blame.
    back.close(Duration::ZERO).await;
    assert!(record(&dir)["attempt"].is_null());
    unload_all(&dir);
    let rebooted = Node::boot(dir.path(), "b");
    is_well(&rebooted.engaged(plain("1.0.0")).await).await;
}

#[tokio::test]
async fn a_load_that_was_interrupted_and_came_to_nothing_is_noted_as_over() {
    let dir = tempfile::tempdir().unwrap();
    let before = Node::boot(dir.path(), "a");
    before.fake.with_gate();
    let one = before.engaged(gated("1.0.0")).await;
    is_well(&one).await;
    let mut killed = record(&dir);
    killed["attempt"]["release"] = "another".into();
    killed["attempt"]["module"] = "impl_1_1_0".into();
    killed["known"] = serde_json::json!([
        {"release": killed["active"]["release"], "kernel": RELEASE, "stood": true, "downs": 0}
    ]);
    fs::write(dir.path().join("kernel/filter/record.json"), killed.to_string()).unwrap();
    drop((one, before));
    let after = Node::boot(dir.path(), "a");
    is_well(&after.engaged(gated("1.0.0")).await).await;
    assert!(
        record(&dir)["attempt"].is_null(),
        "what has stood is not watched again"
    );
}

#[tokio::test]
async fn a_version_is_watched_again_after_its_agent_was_started_again_before_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let before = Node::boot(dir.path(), "a");
    let one = before.engaged(plain("1.0.0")).await;
    one.close(Duration::ZERO).await;
    assert!(record(&dir)["attempt"].is_null());
    drop((one, before));
    let after = Node::boot(dir.path(), "a");
    is_well(&after.engaged(plain("1.0.0")).await).await;
    drop(after);
    unload_all(&dir);
    let rebooted = Node::boot(dir.path(), "b");
    fails(&rebooted.engaged(plain("1.0.0")).await, &["the node went down"]).await;
}

#[tokio::test]
async fn a_swap_that_failed_leaves_the_former_version_watched() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::boot(dir.path(), "a");
    let one = node.engaged(plain("1.0.0")).await;
    let open = record(&dir)["attempt"].clone();
    node.fake.fail("plain", libc::EINVAL);
    let two = node.engaged(plain("1.1.0")).await;
    fails(&two, &["1.0.0 is loaded again"]).await;
    assert_eq!(record(&dir)["attempt"], open);
    is_well(&one).await;
    // Nothing could be written before, either.
    let part = dir.path().join("kernel/filter/record.part");
    fs::create_dir(&part).unwrap();
    let three = node.engaged(plain("1.2.0")).await;
    fails(&three, &["record.json can't be written"]).await;
    fs::remove_dir(&part).unwrap();
    assert_eq!(record(&dir)["attempt"], open);
}

#[tokio::test]
async fn a_candidate_that_cannot_be_unloaded_is_known_to_be_in_the_place() {
    let node = Node::new();
    let one = node.engaged(plain("1.0.0")).await;
    let check = "[[kernel.checks]]\nfile = \"parameters/requests\"\nat-least = 1";
    node.fake.held.lock().unwrap().push("plain".to_owned());
    let two = node.engaged(artifact("1.1.0", "plain", check, &[])).await;
    fails(&two, &["says 0; it should be at least 1", "1.0.0 is missing"]).await;
    fails(&one, &["a swap that failed took it from its place"]).await;
    node.fake.held.lock().unwrap().clear();
    node.fake.refcnt("plain", "0");
    node.fake.calls();
    engage(&one).await;
    is_well(&one).await;
    assert_eq!(
        node.fake.calls(),
        ["-plain", "+plain v=1.0.0"],
        "it is really engaged"
    );
}

#[tokio::test]
async fn an_ill_candidate_leaves_the_gate_though_the_former_version_can_not_come_back() {
    let node = Node::new();
    node.fake.with_gate();
    let one = node.engaged(gated("1.0.0")).await;
    let check =
        "style = \"gated\"\ngate = \"gate\"\n[[kernel.checks]]\nfile = \"parameters/requests\"\nat-least = 1";
    let depends = format!("depends={GATE}");
    let ill = || artifact("1.1.0", "impl_ill", check, &[&depends]);
    node.fake.held.lock().unwrap().push("impl_1_0_0".to_owned());
    let two = node.engaged(ill()).await;
    fails(
        &two,
        &[
            "says 0; it should be at least 1",
            "impl_1_0_0 1.0.0 can't be unloaded",
        ],
    )
    .await;
    assert_eq!(node.fake.modules(), [GATE, "impl_1_0_0"]);
    assert_eq!(node.fake.get("/sys/module/gate/parameters/active"), "");
    let three = node.engaged(gated("1.0.0")).await;
    fails(&three, &["still loaded from an earlier swap", "1.0.0"]).await;
    node.fake.held.lock().unwrap().clear();
    node.fake.refcnt("impl_1_0_0", "0");
    node.fake.calls();
    engage(&one).await;
    is_well(&one).await;
    assert_eq!(node.fake.calls(), ["-impl_1_0_0", "+impl_1_0_0"]);
    node.fake.set("/sys/module/gate/parameters/vacate", "impl_1_0_0");
    fails(&one, &["not at the gate gate any more"]).await;
    engage(&one).await;
    is_well(&one).await;
}

#[tokio::test]
async fn a_load_amid_which_the_agent_fails_is_a_failed_one() {
    let node = Node::new();
    let one = node.engaged(plain("1.0.0")).await;
    node.fake.panics.lock().unwrap().push("plain".to_owned());
    let two = node.engaged(plain("1.1.0")).await;
    fails(&two, &["the agent failed amid its load"]).await;
    node.fake.panics.lock().unwrap().clear();
    engage(&one).await;
    is_well(&one).await;
    assert_eq!(node.fake.modules(), ["plain"]);
}

/// Waits until a load has begun that hangs.
async fn begun(node: &Node, load: &str) {
    let begun = async {
        while !node.fake.calls.lock().unwrap().iter().any(|call| call == load) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), begun)
        .await
        .unwrap();
}

/// Another module's load that has the turn until it is let go on.
async fn another_has_the_turn(node: &Node, version: &str) -> tokio::task::JoinHandle<()> {
    node.fake.hang("other");
    let other = node
        .start(named("nic", artifact(version, "other", "", &[])))
        .await
        .unwrap();
    let entering = tokio::spawn(other.engage().unwrap());
    begun(node, "+other").await;
    node.fake.calls();
    entering
}

#[tokio::test]
async fn on_the_way_back_the_place_is_left_to_who_comes_back() {
    let node = Node::new();
    node.fake.with_gate();
    let one = node.engaged(gated("1.0.0")).await;
    let two = node.engaged(gated("1.1.0")).await;
    let other = another_has_the_turn(&node, "1.0.0").await;
    let back = one.engage().unwrap();
    dismissed(&two).await;
    assert!(node.fake.calls().is_empty(), "it stays until the other is there");
    node.fake.go_on();
    back.await;
    other.await.unwrap();
    is_well(&one).await;
    assert_eq!(node.fake.calls(), ["+impl_1_0_0", "-impl_1_1_0"]);
    // Where who comes back can't be put there, what was dismissed goes all the same.
    let three = node.engaged(gated("1.2.0")).await;
    node.fake.calls();
    let other = another_has_the_turn(&node, "1.1.0").await;
    let back = one.engage().unwrap();
    dismissed(&three).await;
    node.fake.fail("impl_1_0_0", libc::EINVAL);
    node.fake.go_on();
    back.await;
    other.await.unwrap();
    fails(&one, &["impl_1_0_0 1.0.0 could not be loaded"]).await;
    assert_eq!(
        node.fake.calls(),
        ["+impl_1_0_0", "vacate impl_1_2_0", "-impl_1_2_0"]
    );
}

#[tokio::test]
async fn who_is_wanted_no_more_when_its_turn_comes_touches_nothing() {
    let node = Node::new();
    let one = node.engaged(plain("1.0.0")).await;
    let two = node.start(plain("1.1.0")).await.unwrap();
    let other = another_has_the_turn(&node, "1.0.0").await;
    let late = two.engage().unwrap();
    assert!(one.engage().is_none(), "it is there");
    node.fake.go_on();
    late.await;
    other.await.unwrap();
    is_well(&one).await;
    assert!(node.fake.calls().is_empty());
}

#[tokio::test]
async fn a_version_that_waits_for_another_module_does_not_come_over_who_is_wanted_by_then() {
    let node = Node::new();
    let one = node.engaged(gated("1.0.0")).await;
    fails(&one, &["needs modules that are not loaded: gate"]).await;
    let two = node.engaged(patch("1.1.0")).await;
    is_well(&two).await;
    node.fake.with_gate();
    node.fake.calls();
    for _ in 0..20 {
        one.tally();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let three = node.engaged(patch("1.2.0")).await;
    is_well(&three).await;
    assert_eq!(node.fake.calls(), ["+patch_1_2_0", "-patch_1_1_0"]);
}

/// What a reboot leaves of a kernel.
fn unload_all(dir: &tempfile::TempDir) {
    fs::remove_dir_all(dir.path().join("root/sys")).unwrap();
}

#[tokio::test]
async fn a_version_with_which_the_node_went_down_starts_and_is_not_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let before = Node::boot(dir.path(), "a");
    let one = before.engaged(plain("1.0.0")).await;
    is_well(&one).await;
    dismissed(&one).await;
    let two = before.engaged(plain("1.1.0")).await;
    is_well(&two).await;
    drop((two, before));
    unload_all(&dir);
    let after = Node::boot(dir.path(), "b");
    let base = after.engaged(plain("1.0.0")).await;
    is_well(&base).await;
    let refused = after.engaged(plain("1.1.0")).await;
    fails(&refused, &["the node went down while 1.1.0 was being loaded"]).await;
    assert_eq!(
        after.fake.calls(),
        ["+plain v=1.0.0"],
        "nothing was touched for it"
    );
    engage(&base).await;
    is_well(&base).await;
    assert!(after.fake.calls().is_empty(), "it is there");
}

#[tokio::test]
async fn of_two_modules_that_were_watched_the_newer_one_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let before = Node::boot(dir.path(), "a");
    before.fake.with_gate();
    is_well(&before.engaged(gated("1.0.0")).await).await;
    let other = || named("nic", plain("1.0.0"));
    is_well(&before.engaged(other()).await).await;
    drop(before);
    unload_all(&dir);
    let after = Node::boot(dir.path(), "b");
    after.fake.with_gate();
    is_well(&after.engaged(gated("1.0.0")).await).await;
    fails(&after.engaged(other()).await, &["the node went down"]).await;
}

#[tokio::test]
async fn an_agent_that_was_killed_in_a_swap_leaves_what_its_successor_makes_sure_of() {
    let dir = tempfile::tempdir().unwrap();
    let before = Node::boot(dir.path(), "a");
    before.fake.with_gate();
    let one = before.engaged(gated("1.0.0")).await;
    is_well(&one).await;
    let record = fs::read_to_string(dir.path().join("kernel/filter/record.json")).unwrap();
    let two = before.engaged(gated("1.1.0")).await;
    is_well(&two).await;
    // As if it had been killed when both were loaded: the former one is remembered, and the next one begun.
    let begun = fs::read_to_string(dir.path().join("kernel/filter/record.json")).unwrap();
    let mut of_kill: serde_json::Value = serde_json::from_str(&record).unwrap();
    let begun: serde_json::Value = serde_json::from_str(&begun).unwrap();
    of_kill["attempt"] = begun["active"].clone();
    fs::write(dir.path().join("kernel/filter/record.json"), of_kill.to_string()).unwrap();
    before.fake.refcnt("impl_1_0_0", "0");
    drop((one, two));
    let after = Node::boot(dir.path(), "a");
    let back = after.engaged(gated("1.0.0")).await;
    is_well(&back).await;
    assert_eq!(after.fake.modules(), [GATE, "impl_1_0_0"]);
}

#[tokio::test]
async fn an_oops_while_it_is_there_is_held_against_it() {
    let node = Node::new();
    node.fake.set("/proc/sys/kernel/tainted", "4096");
    let one = node.engaged(plain("1.0.0")).await;
    is_well(&one).await;
    node.fake.set("/proc/sys/kernel/tainted", "4224");
    fails(&one, &["the kernel oopsed"]).await;
    // Replaced, it is a file that may come again.
    let two = node.engaged(plain("1.1.0")).await;
    is_well(&two).await;
    is_well(&one).await;
}

#[tokio::test]
async fn each_oops_is_held_against_the_newest_load_that_is_watched_and_no_other() {
    let node = Node::new();
    node.fake.set("/sys/kernel/oops_count", "3");
    node.fake.set("/proc/sys/kernel/tainted", "128");
    let nic = |version: &str| named("nic", artifact(version, "nic", "", &[]));
    let one = node.engaged(plain("1.0.0")).await;
    let other = node.engaged(nic("1.0.0")).await;
    is_well(&other).await;
    node.fake.set("/sys/kernel/oops_count", "4");
    fails(&other, &["the kernel oopsed"]).await;
    looked_at(&node, &one).await;
    is_well(&one).await;
    assert_eq!(one.complaint(), None, "a newer one answers for it");
    dismissed(&other).await;
    looked_at(&node, &one).await;
    is_well(&one).await;
    node.fake.set("/sys/kernel/oops_count", "5");
    fails(&one, &["the kernel oopsed"]).await;
}

#[tokio::test]
async fn an_oops_is_held_against_what_has_stood_only_while_it_is_on_trial() {
    let dir = tempfile::tempdir().unwrap();
    let before = Node::boot(dir.path(), "a");
    let one = before.engaged(plain("1.0.0")).await;
    let mut stood = record(&dir);
    stood["known"] = serde_json::json!([
        {"release": stood["active"]["release"], "kernel": RELEASE, "stood": true, "downs": 0}
    ]);
    one.close(Duration::ZERO).await;
    drop((one, before));
    stood["attempt"] = serde_json::Value::Null;
    fs::write(dir.path().join("kernel/filter/record.json"), stood.to_string()).unwrap();
    let node = Node::boot(dir.path(), "a");
    let one = node.engaged(plain("1.0.0")).await;
    node.fake.set("/proc/sys/kernel/tainted", "128");
    looked_at(&node, &one).await;
    assert_eq!(one.readiness(), Readiness::Ready);
    assert!(one.complaint().unwrap().contains("the kernel oopsed"));
}

/// Waits until a version was looked at from beginning to end.
async fn looked_at(node: &Node, instance: &Arc<dyn Instance>) {
    let file = "/sys/module/plain/parameters/requests";
    let counted = node.fake.get(file).parse::<u64>().unwrap() + 1;
    node.fake.set(file, &counted.to_string());
    counts(instance, counted).await;
}

#[tokio::test]
async fn a_module_whose_files_never_answer_is_told_and_holds_nobody_up() {
    let node = Node::new();
    let one = node.engaged(plain("1.0.0")).await;
    looked_at(&node, &one).await;
    let file = node.fake.root.join("sys/module/plain/parameters/requests");
    // One that never ends is read no further than it needs to be.
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    one.tally();
    fs::remove_file(&file).unwrap();
    fs::write(&file, "3").unwrap();
    looked_at(&node, &one).await;
    // Whoever opens this to read waits for somebody who writes.
    fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    fails(&one, &["its files don't answer"]).await;
    fs::write(&file, "9").unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, "10").unwrap();
    is_well(&one).await;
    looked_at(&node, &one).await;
}

#[tokio::test]
async fn checks_share_one_deadline_and_patience_is_enough_for_who_was_there() {
    let node = Node::new();
    let check = "[[kernel.checks]]\nfile = \"parameters/requests\"\nat-least = 1\n".repeat(16);
    let begun = Instant::now();
    let ill = node.engaged(artifact("1.0.0", "plain", &check, &[])).await;
    let took = begun.elapsed();
    fails(&ill, &["says 0; it should be at least 1"]).await;
    assert!(
        took < Duration::from_millis(1500),
        "16 deadlines of 100 ms, one after the other: {took:?}"
    );

    let manifest = plain("1.1.0").manifest;
    let next = Version {
        release: "r2".to_owned(),
        label: "1.1.0".to_owned(),
        kernel: manifest.kernel.clone().unwrap(),
        file: PathBuf::from("r2.ko"),
        depends: Vec::new(),
    };
    let mut former = next.as_active("a", RELEASE);
    (former.release, former.deadline_ms) = ("r1".to_owned(), 30_000);
    let mut record = Record::default();
    let mut patience = |former: Option<Active>| {
        record.active = former;
        let place = Place {
            system: &*node.fake,
            record: &mut record,
            path: Path::new("record.json"),
            boot: "a",
            release: RELEASE,
            is_released: &AtomicBool::new(false),
            next_number: &|| 1,
        };
        place.patience(&next)
    };
    assert!(patience(None) < Duration::from_secs(3));
    // Disabled, unloaded, loaded again.
    assert!(patience(Some(former)) > Duration::from_secs(90));
}

#[tokio::test]
async fn whoever_needs_a_module_whose_load_hangs_is_told_at_once() {
    let node = Node::new();
    let one = node.engaged(plain("1.0.0")).await;
    let two = node.start(plain("1.1.0")).await.unwrap();
    node.fake.hang("plain");
    engage(&two).await;
    let hangs = "the kernel has been loading for more than 2 s";
    fails(&two, &[hangs]).await;
    let refused = node.start(plain("1.2.0")).await.err().unwrap();
    assert!(refused.contains(hangs), "{refused}");
    engage(&one).await;
    fails(&one, &[hangs]).await;
    dismissed(&two).await;
    node.fake.go_on();
    // It has come to its end after all.
    let three = async {
        loop {
            match node.start(plain("1.2.0")).await {
                Ok(three) => return three,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    let three = tokio::time::timeout(Duration::from_secs(30), three)
        .await
        .unwrap();
    assert!(node.fake.modules().is_empty(), "it was dismissed meanwhile");
    engage(&three).await;
    is_well(&three).await;
}

#[tokio::test]
async fn an_oops_in_an_init_is_told_as_one() {
    let node = Node::new();
    node.fake.set("/sys/kernel/oops_count", "0");
    let one = node.start(plain("1.0.0")).await.unwrap();
    node.fake.hang("plain");
    let load = tokio::spawn(one.engage().unwrap());
    begun(&node, "+plain v=1.0.0").await;
    node.fake.set("/sys/kernel/oops_count", "1");
    load.await.unwrap();
    fails(
        &one,
        &[
            "the kernel oopsed while 1.0.0 was being loaded",
            "start the node again",
        ],
    )
    .await;
    node.fake.go_on();
}

#[test]
fn files_must_be_what_the_manifest_says() {
    let told =
        |artifact: &Artifact| inspect(&artifact.manifest, &artifact.content).map(|found| found.summary());
    let well = told(&plain("1.0.0")).unwrap();
    assert!(
        well.contains("for 6.1.0-test, licensed GPL, not signed"),
        "{well}"
    );
    for (artifact, because) in [
        (artifact("1.0.0", "other", "", &["name=x"]), None),
        (
            artifact("1.0.0", "plain", "", &["livepatch=Y"]),
            Some("is a livepatch"),
        ),
        (
            artifact("1.0.0", "plain", "style = \"livepatch\"", &[]),
            Some("is no livepatch"),
        ),
    ] {
        match because {
            None => assert!(told(&artifact).is_ok(), "the first of two names counts"),
            Some(because) => assert!(told(&artifact).unwrap_err().contains(because)),
        }
    }
    let with = |info: &[&str]| {
        let mut artifact = plain("1.0.0");
        let kernel = artifact.manifest.kernel.clone().unwrap();
        artifact.content = Bytes::from(kernel.artifact(&[Bytes::from(ko(info))]).unwrap());
        told(&artifact).unwrap_err()
    };
    let vermagic = format!("vermagic={RELEASE} SMP");
    assert!(with(&["name=plane", &vermagic]).contains("a module called \"plane\""));
    assert!(with(&["name=plain", "vermagic=5.10.0 SMP"]).contains("built for the kernel \"5.10.0\""));
    assert!(with(&["name=plain", &vermagic]).contains("names no license"));
    let mut not_elf = plain("1.0.0");
    let kernel = not_elf.manifest.kernel.clone().unwrap();
    not_elf.content = Bytes::from(kernel.artifact(&[Bytes::from_static(b"\x7fELF...")]).unwrap());
    assert!(told(&not_elf).unwrap_err().contains("no ELF file"));
}

#[test]
fn what_a_file_says_of_itself_is_bounded() {
    let told = |info: &[&str]| {
        let mut artifact = plain("1.0.0");
        let kernel = artifact.manifest.kernel.clone().unwrap();
        artifact.content = Bytes::from(kernel.artifact(&[Bytes::from(ko(info))]).unwrap());
        inspect(&artifact.manifest, &artifact.content).unwrap_err()
    };
    let many = vec!["a=b"; 100_001];
    assert!(told(&many).contains(".modinfo has more than 100000 entries"));
    let large = "a".repeat(5 << 20);
    assert!(told(&[&large]).contains(".modinfo has 5242881 bytes; at most 4194304"));
}

#[tokio::test]
async fn what_was_released_to_another_agent_is_not_touched_until_it_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::boot(dir.path(), "a");
    let one = node.engaged(plain("1.0.0")).await;
    let on_standby = node.start(plain("1.1.0")).await.unwrap();
    let twin = node.start(plain("1.0.0")).await.unwrap();
    node.host.release().await;
    assert!(record(&dir)["attempt"].is_null(), "its watch is over");
    let successor = Node::boot(dir.path(), "a");
    is_well(&successor.engaged(plain("1.0.0")).await).await;
    let of_successor = record(&dir);
    assert_eq!(of_successor["attempt"]["label"], "1.0.0", "it goes on with it");
    engage(&on_standby).await;
    fails(&on_standby, &["another agent has taken this node over"]).await;
    dismissed(&on_standby).await;
    one.close(Duration::ZERO).await;
    assert_eq!(record(&dir), of_successor);
    assert_eq!(node.fake.modules(), ["plain"]);
    // The successor failed, and this agent has the node again.
    drop(successor);
    let again = node.engaged(plain("1.0.0")).await;
    is_well(&again).await;
    // What was started before is no user of it any more, and ends without a trace.
    dismissed(&twin).await;
    let two = node.engaged(plain("1.1.0")).await;
    is_well(&two).await;
    engage(&again).await;
    is_well(&again).await;
    for instance in [&two, &again] {
        dismissed(instance).await;
    }
    assert!(node.fake.modules().is_empty());
}

#[tokio::test]
async fn what_can_not_be_taken_away_is_watched_no_more() {
    for is_unloaded in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::boot(dir.path(), "a");
        let one = node.engaged(plain("1.0.0")).await;
        assert!(!record(&dir)["attempt"].is_null());
        if is_unloaded {
            unload_all(&dir);
        } else {
            node.fake.refcnt("plain", "1");
        }
        dismissed(&one).await;
        assert!(record(&dir)["attempt"].is_null(), "unloaded: {is_unloaded}");
    }
}

#[tokio::test]
async fn a_node_whose_kernel_has_no_build_says_which_there_are() {
    let node = Node::new();
    node.fake.set("/proc/sys/kernel/osrelease", "6.2.0");
    let dir = tempfile::tempdir().unwrap();
    let host = KernelHost::with(KernelHostConfig::new(dir.path().to_owned()), node.fake.clone()).unwrap();
    let refused = host.prepare(plain("1.0.0")).await.err().unwrap().to_string();
    assert!(
        refused.contains("no build for this node's kernel 6.2.0; there are builds for 6.1.0-test"),
        "{refused}"
    );
}
