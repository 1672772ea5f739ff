//! One version: in its place in the kernel, on standby as a file, or only looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hotswap_core::ids::Digest;
use hotswap_package::{Manifest, Style};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::counting::Counting;
use super::host::{Module, Users};
use super::swap::{NotPut, Version};
use super::sysfs::has_died;
use crate::kind::{BoxFuture, Closed, Instance, Readiness, Tally, Usage};

/// How long a version must have been in its place without harm until its load counts as over.
const STOOD_AFTER: Duration = Duration::from_secs(10);
/// How much longer than its deadlines a load may take before it counts as one that hangs.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// A version. Dropping it leaves everything as it is in the kernel.
#[derive(Debug)]
pub(super) struct KernelInstance {
    pub(super) loaded: Arc<Loaded>,
}

/// What a version is.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) digest: Digest,
    pub(super) label: String,
    pub(super) manifest: Arc<Manifest>,
    /// None where it is only looked at.
    pub(super) at: Option<(Arc<Module>, Version)>,
    pub(super) counting: Mutex<Counting>,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Why it isn't as it should be.
    trouble: Option<String>,
    /// Whether it waits for something else to be there.
    waits: bool,
    /// How often it is being put in its place now.
    engaging: u32,
    dismissed: bool,
    closed: bool,
    /// Since when it is in its place, and what the kernel's taint was before.
    since: Option<(Instant, u64)>,
    loads: u64,
}

impl Loaded {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counting(&self) -> MutexGuard<'_, Counting> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long putting it in its place may take: a wait and its reversal, both for itself and for the former version.
    fn patience(version: &Version) -> Duration {
        version.kernel.deadline.get() * 4 + HANGS_AFTER
    }

    /// Whether it is being put in its place, or waits for its turn.
    pub(super) fn is_on_its_way(&self) -> bool {
        self.state().engaging > 0
    }

    /// Whether it is in its place already, as it should be.
    fn is_there(self: &Arc<Self>) -> bool {
        let Some((module, _)) = &self.at else { return true };
        // Somebody is being put in the place, who may be it.
        let Some(users) = module.try_lock() else {
            return false;
        };
        let active = users.active.as_ref();
        active.is_some_and(|active| Arc::ptr_eq(active, self)) && self.state().trouble.is_none()
    }

    /// Puts the version in its place, and ends when it is there, or can't be, or hangs.
    async fn engage(self: Arc<Self>, way: OnTheWay) {
        let Some((module, version)) = &self.at else { return };
        let turn = module.turn.lock().await;
        let (done, is_done) = oneshot::channel();
        let own = Arc::clone(&self);
        // A thread of its own: whoever hangs in the kernel can't be got out of it.
        thread::spawn(move || {
            own.put(way);
            // Nobody may wait any more.
            let _ = done.send(());
        });
        let patience = Self::patience(version);
        let in_time = timeout(patience, is_done).await;
        // Whoever hangs hinders no other module.
        drop(turn);
        if in_time.is_err() {
            let trouble = format!(
                "the kernel has been loading for more than {} s, and can't be interrupted: the node has to be started \
                 again",
                patience.as_secs()
            );
            tracing::error!(module = %self.manifest.name, version = self.label, trouble, "a load hangs");
            self.state().trouble = Some(trouble);
        }
    }

    /// Puts the version in its place, if it is to be there by now.
    fn put(self: &Arc<Self>, way: OnTheWay) {
        let Some((module, version)) = &self.at else { return };
        let mut users = module.lock();
        // Who gets the lock next sees that it is on its way no more.
        let way = way;
        if module.wants(self) {
            let put = catch_unwind(AssertUnwindSafe(|| self.put_now(module, version, &mut users)));
            if put.is_err() {
                // Who is put there next makes sure who is there.
                users.active = None;
                self.state().trouble = Some("the agent failed amid its load; see the agent's log".to_owned());
            }
        }
        drop(way);
        Self::clear_dismissed(module, &mut users);
        Self::watch_no_more(module, &mut users);
    }

    fn put_now(self: &Arc<Self>, module: &Module, version: &Version, users: &mut Users) {
        let is_active = users
            .active
            .as_ref()
            .is_some_and(|active| Arc::ptr_eq(active, self));
        if is_active && self.state().trouble.is_none() {
            return;
        }
        let former = users.active.clone();
        let (from, taint) = (self.counting().read(module.sysfs()), module.sysfs().taint());
        if !std::mem::replace(&mut users.watched, true) {
            module.watchdog.watch();
        }
        let load = module.watchdog.begin(Instant::now() + Self::patience(version));
        if let Some(former) = &former {
            // While it is still there.
            former.counting().look(module.sysfs());
        }
        let begun = Instant::now();
        let put = module.at(&mut users.record, |place| place.put(version));
        let took_ms = begun.elapsed().as_secs_f64() * 1e3;
        module.watchdog.over(load);
        let (name, label) = (&self.manifest.name, &self.label);
        let mut state = self.state();
        match put {
            Ok((came, taint_told)) => {
                state.loads += 1;
                state.since = Some((Instant::now(), taint));
                (state.trouble, state.waits) = (None, false);
                drop(state);
                tracing::info!(module = %name, version = label, kernel_module = version.kernel.module, ?came, took_ms,
                    taint = taint_told, "a kernel module is in its place");
                if let Some(former) = former.filter(|former| !Arc::ptr_eq(former, self)) {
                    former.counting().end();
                    let mut state = former.state();
                    state.since = None;
                    // Whatever was wrong with it was so in that place.
                    (state.trouble, state.waits) = (None, false);
                }
                self.counting().begin(from);
                users.active = Some(Arc::clone(self));
                users.dismissed = None;
                module.sweep(users);
            }
            Err(not_put) => {
                let (trouble, waits) = match not_put {
                    NotPut::Waits(trouble) => (trouble, true),
                    NotPut::Failed(trouble) => (trouble, false),
                };
                if state.trouble.as_ref() != Some(&trouble) {
                    tracing::error!(module = %name, version = label, trouble, took_ms, "a kernel module is not in its place");
                }
                (state.trouble, state.waits) = (Some(trouble), waits);
                drop(state);
                users.active = self.who_is_there(users, former);
            }
        }
    }

    /// Whose release is in the place after a swap that failed.
    fn who_is_there(self: &Arc<Self>, users: &Users, former: Option<Arc<Self>>) -> Option<Arc<Self>> {
        let active = users.record.active.as_ref()?;
        let is = |loaded: &Arc<Self>| matches!(&loaded.at, Some((_, version)) if version.release == active.release);
        former.into_iter().chain([Arc::clone(self)]).find(is)
    }

    /// Tells the watchdog when nothing is being loaded or watched any more.
    fn watch_no_more(module: &Module, users: &mut Users) {
        if users.watched && !users.record.is_watching() {
            users.watched = false;
            module.watchdog.end();
        }
    }

    /// Whether what is in its place is as it should be, and whether it has stood.
    fn look_after(&self) {
        let Some((module, version)) = &self.at else { return };
        // Somebody is being loaded: it is looked at afterwards.
        let Some(mut users) = module.try_lock() else {
            return;
        };
        let is_active = users
            .active
            .as_ref()
            .is_some_and(|active| std::ptr::eq(&**active, self));
        let since = self.state().since;
        let Some((since, taint)) = since.filter(|_| is_active) else {
            return;
        };
        let trouble = self.problem(module, version, taint).err();
        {
            let mut state = self.state();
            if state.trouble != trouble {
                let (name, label) = (&self.manifest.name, &self.label);
                match &trouble {
                    Some(trouble) => {
                        tracing::error!(module = %name, version = label, trouble, "a kernel module is not as it should be");
                    }
                    None => {
                        tracing::info!(module = %name, version = label, "a kernel module is as it should be again");
                    }
                }
                state.trouble.clone_from(&trouble);
            }
        }
        if users.record.is_unwritten
            && let Err(problem) = module.at(&mut users.record, |place| place.write())
        {
            tracing::debug!(module = %self.manifest.name, problem, "what is in a module's place can't be noted yet");
        }
        if trouble.is_none() && since.elapsed() >= STOOD_AFTER && users.record.is_watching() {
            users.record.stood(&version.release, module.release());
            if let Err(problem) = module.at(&mut users.record, |place| place.write()) {
                tracing::warn!(module = %self.manifest.name, problem, "that a version stood can't be noted");
            }
            Self::watch_no_more(module, &mut users);
        }
    }

    fn problem(&self, module: &Module, version: &Version, taint: u64) -> Result<(), String> {
        let (sysfs, kernel) = (module.sysfs(), &version.kernel);
        if !sysfs.is_loaded(&kernel.module) {
            return Err(format!(
                "{} is not loaded any more: somebody unloaded it",
                kernel.module
            ));
        }
        if kernel.style == Style::Livepatch && sysfs.patches(&kernel.module) != Some(true) {
            return Err(format!(
                "{} is not enabled any more: somebody disabled it",
                kernel.module
            ));
        }
        if let Some(gate) = &kernel.gate
            && !sysfs.gate_has(gate, &kernel.module)
        {
            return Err(format!(
                "{} is not at the gate {gate} any more: somebody had it vacated, or entered in its place",
                kernel.module
            ));
        }
        if has_died(taint, sysfs.taint()) {
            return Err("the kernel oopsed since it is loaded; see the kernel's log".to_owned());
        }
        sysfs.checks(kernel)
    }

    /// Ends an instance: what is loaded goes if it was dismissed, else it stays for whoever comes next.
    fn end(self: &Arc<Self>) {
        let mut state = self.state();
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        let dismissed = state.dismissed;
        drop(state);
        let Some((module, version)) = &self.at else { return };
        module.want_no_more(self);
        let mut users = module.lock();
        let release = &version.release;
        let left = users.loaded.get(release).map_or(0, |count| count - 1);
        if left > 0 {
            users.loaded.insert(release.clone(), left);
        } else {
            users.loaded.remove(release);
        }
        let is_active = users
            .active
            .as_ref()
            .is_some_and(|active| Arc::ptr_eq(active, self));
        if is_active {
            users.active = None;
        }
        let name = &self.manifest.name;
        if dismissed && left == 0 && users.active.is_none() {
            users.dismissed = Some(release.clone());
            Self::clear_dismissed(module, &mut users);
        } else if dismissed {
            module.sweep(&users);
        } else if !is_active {
            return;
        } else if users.record.is_watching() {
            // The node is in order: going down from here on is nobody's doing.
            users.record.end();
            if let Err(problem) = module.at(&mut users.record, |place| place.write()) {
                tracing::warn!(module = %name, problem, "the end of a load can't be noted");
            }
        }
        Self::watch_no_more(module, &mut users);
    }

    /// Takes away what was dismissed, unless somebody is on the way to its place: that one replaces it, so that the place
    /// isn't empty meanwhile.
    fn clear_dismissed(module: &Module, users: &mut Users) {
        if module.is_awaiting() {
            return;
        }
        let Some(release) = users.dismissed.take() else {
            return;
        };
        if let Err(problem) = module.at(&mut users.record, |place| place.clear(&release)) {
            tracing::error!(
                module = module.name(),
                release,
                problem,
                "a kernel module stays loaded"
            );
        } else {
            tracing::info!(module = module.name(), release, "a kernel module was taken away");
        }
        module.sweep(users);
    }
}

/// Says that an instance is on its way to its place, for as long as it is there.
struct OnTheWay(Arc<Loaded>);

impl OnTheWay {
    fn begin(loaded: &Arc<Loaded>) -> Self {
        loaded.state().engaging += 1;
        Self(Arc::clone(loaded))
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.0.state().engaging -= 1;
    }
}

impl Instance for KernelInstance {
    fn digest(&self) -> Digest {
        self.loaded.digest
    }

    fn label(&self) -> &str {
        &self.loaded.label
    }

    fn manifest(&self) -> &Manifest {
        &self.loaded.manifest
    }

    fn engage(&self) -> Option<BoxFuture<'static, ()>> {
        let (module, _) = self.loaded.at.as_ref()?;
        // At once: whoever ends meanwhile leaves the place to it.
        module.want(&self.loaded);
        if self.loaded.is_there() {
            return None;
        }
        let way = OnTheWay::begin(&self.loaded);
        Some(Box::pin(Arc::clone(&self.loaded).engage(way)))
    }

    fn dismiss(&self) {
        self.loaded.state().dismissed = true;
    }

    fn readiness(&self) -> Readiness {
        let state = self.loaded.state();
        match &state.trouble {
            _ if state.closed => Readiness::Closed,
            Some(trouble) => Readiness::Failing(trouble.clone()),
            None => Readiness::Ready,
        }
    }

    fn tally(&self) -> Option<Tally> {
        let (module, _) = self.loaded.at.as_ref()?;
        let waits = {
            let state = self.loaded.state();
            state.waits && !state.closed && state.engaging == 0
        };
        let waits = waits && module.wants(&self.loaded);
        if let Some(engaged) = waits.then(|| self.engage()).flatten() {
            tokio::spawn(engaged);
        }
        self.loaded.look_after();
        Some(self.loaded.counting().look(module.sysfs()))
    }

    fn usage(&self) -> Usage {
        let state = self.loaded.state();
        Usage {
            instances: u64::from(state.since.is_some() && !state.closed),
            instances_started: state.loads,
            ..Usage::default()
        }
    }

    fn close(&self, _deadline: Duration) -> BoxFuture<'static, Closed> {
        let loaded = Arc::clone(&self.loaded);
        Box::pin(async move {
            let ended = spawn_blocking(move || loaded.end()).await;
            if let Err(panic) = ended {
                tracing::error!(%panic, "a version's end failed");
            }
            Closed::default()
        })
    }
}
