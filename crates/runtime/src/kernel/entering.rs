//! How an instance comes to its place, and how it ends.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::instance::{Loaded, Standing};
use super::module::{Module, Users};
use super::swap::{NotPut, Version};
use super::sysfs::Oopses;
use super::work::{Ended, Until, work};

/// Says that an instance is on its way to its place, for as long as it is.
pub(super) struct OnTheWay(Arc<Loaded>);

impl OnTheWay {
    pub(super) fn begin(loaded: &Arc<Loaded>) -> Self {
        loaded.state().engaging += 1;
        Self(Arc::clone(loaded))
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.0.state().engaging -= 1;
    }
}

impl Loaded {
    /// Puts the version in its place, and ends when it is there, or can't be, or hangs.
    pub(super) async fn engage(self: Arc<Self>, way: OnTheWay) {
        let Some((module, version)) = &self.at else { return };
        let turn = module.node.turn.lock().await;
        let before = module.sysfs().oopses();
        let own = Arc::clone(&self);
        let ended = work(move |until| own.put(way, until)).await;
        // Whoever hangs hinders no other module.
        drop(turn);
        let trouble = match ended {
            Ended::Done => return,
            Ended::Failed => "its load could not be begun; see the agent's log".to_owned(),
            Ended::Hangs(_) if module.sysfs().oopses().are_more_than(before) => format!(
                "the kernel oopsed while {} was being loaded, and that load never ends: start the node again; the \
                 kernel's log says where",
                version.label
            ),
            Ended::Hangs(patience) => format!(
                "the kernel has been loading for more than {} s, and can't be interrupted: the node has to be started \
                 again",
                patience.as_secs()
            ),
        };
        tracing::error!(module = %self.manifest.name, version = self.label, trouble, "a load hangs");
        module.is_stuck(&trouble);
        self.state().trouble = Some(trouble);
    }

    /// Puts the version in its place, if it is to be there by now.
    fn put(self: &Arc<Self>, way: OnTheWay, until: &Until) {
        let Some((module, version)) = &self.at else { return };
        let mut users = match module.lock() {
            Ok(users) => users,
            Err(stuck) => {
                self.state().trouble = Some(stuck);
                return;
            }
        };
        // Who gets the lock next sees that it is on its way no more.
        let way = way;
        if module.wants(self) {
            let put = catch_unwind(AssertUnwindSafe(|| {
                self.put_now(module, version, &mut users, until);
            }));
            if put.is_err() {
                // Who is put there next makes sure who is there.
                users.active = None;
                self.state().trouble = Some("the agent failed amid its load; see the agent's log".to_owned());
            }
        }
        drop(way);
        if self.state().closed {
            // Its end could not wait.
            self.let_go(module, version, &mut users, until);
        }
        Self::clear_dismissed(module, &mut users, until);
        module.note_watched(&mut users);
    }

    fn put_now(self: &Arc<Self>, module: &Module, version: &Version, users: &mut Users, until: &Until) {
        if self.is_active(users) && self.state().trouble.is_none() {
            return;
        }
        let former = users.active.clone();
        let patience = module.at(&mut users.record, |place| place.patience(version));
        until.within(patience);
        if !mem::replace(&mut users.is_guarded, true) {
            module.node.watchdog.watch();
        }
        let load = module.node.watchdog.begin(Instant::now() + patience);
        let (from, oopses) = (self.count(module.sysfs()), module.sysfs().oopses());
        if let Some(former) = &former {
            // While it is still there.
            let counted = former.count(module.sysfs());
            former.counting().saw(counted);
        }
        let begun = Instant::now();
        let put = module.at(&mut users.record, |place| place.put(version));
        let took_ms = begun.elapsed().as_secs_f64() * 1e3;
        module.node.watchdog.over(load);
        let (name, label) = (&self.manifest.name, &self.label);
        match put {
            Ok((came, taint)) => {
                tracing::info!(module = %name, version = label, kernel_module = version.kernel.module, ?came, took_ms,
                    taint, "a kernel module is in its place");
                self.has_come(module, users, from, oopses);
            }
            Err(not_put) => {
                let (trouble, waits) = match not_put {
                    NotPut::Waits(trouble) => (trouble, true),
                    NotPut::Failed(trouble) => (trouble, false),
                };
                let mut state = self.state();
                if state.trouble.as_ref() != Some(&trouble) {
                    tracing::error!(module = %name, version = label, trouble, took_ms, "a kernel module is not in its place");
                }
                (state.trouble, state.waits) = (Some(trouble), waits);
                drop(state);
                users.active = self.who_is_there(users, former.clone());
                if let Some(former) = former.filter(|former| !former.is_active(users)) {
                    former.has_gone(
                        "a swap that failed took it from its place, and it could not be brought back",
                    );
                }
            }
        }
    }

    /// The version is in its place; whoever was there before is a file again.
    fn has_come(self: &Arc<Self>, module: &Module, users: &mut Users, from: Vec<u64>, oopses: Oopses) {
        {
            let mut state = self.state();
            state.loads += 1;
            state.standing = Some(Standing {
                since: Instant::now(),
                number: users.record.number(),
                oopses,
            });
            state.is_well();
        }
        let former = users.active.replace(Arc::clone(self));
        if let Some(former) = former.filter(|former| !Arc::ptr_eq(former, self)) {
            former.counting().end();
            let mut state = former.state();
            state.standing = None;
            // Whatever was wrong with it was so in that place.
            state.is_well();
        }
        self.counting().begin(from);
        users.dismissed = None;
        module.sweep(users);
    }

    /// The version is not in its place any more, and ought to be.
    fn has_gone(&self, why: &str) {
        self.counting().end();
        let mut state = self.state();
        state.standing = None;
        state.trouble.get_or_insert_with(|| why.to_owned());
    }

    /// Whose release is in the place after a swap that failed.
    fn who_is_there(self: &Arc<Self>, users: &Users, former: Option<Arc<Self>>) -> Option<Arc<Self>> {
        let active = users.record.active.as_ref()?;
        let is = |loaded: &Arc<Self>| matches!(&loaded.at, Some((_, version)) if version.release == active.release);
        former.into_iter().chain([Arc::clone(self)]).find(is)
    }

    /// Ends an instance: what is loaded goes if it was dismissed, else it stays for whoever comes next.
    pub(super) async fn close(self: Arc<Self>) {
        let own = Arc::clone(&self);
        let ended = work(move |until| own.end(until)).await;
        let Some((module, version)) = &self.at else { return };
        let trouble = match ended {
            Ended::Done => return,
            Ended::Failed => "its end failed; see the agent's log".to_owned(),
            Ended::Hangs(patience) => format!(
                "the kernel has been unloading {} for more than {} s, and can't be interrupted: the node has to be started \
                 again",
                version.label,
                patience.as_secs()
            ),
        };
        tracing::error!(module = %self.manifest.name, version = self.label, trouble, "a version does not end");
        if ended != Ended::Failed {
            module.is_stuck(&trouble);
        }
    }

    fn end(self: &Arc<Self>, until: &Until) {
        let mut state = self.state();
        if mem::replace(&mut state.closed, true) {
            return;
        }
        drop(state);
        let Some((module, version)) = &self.at else { return };
        module.want_no_more(self);
        match module.lock() {
            Ok(mut users) => {
                self.let_go(module, version, &mut users, until);
                module.note_watched(&mut users);
            }
            Err(stuck) => {
                tracing::warn!(module = %self.manifest.name, version = self.label, stuck, "a version stays where it is");
            }
        }
    }

    fn let_go(self: &Arc<Self>, module: &Module, version: &Version, users: &mut Users, until: &Until) {
        if users.turn != self.turn || module.has_been_released() {
            return;
        }
        let dismissed = {
            let mut state = self.state();
            if mem::replace(&mut state.has_let_go, true) {
                return;
            }
            state.dismissed
        };
        let release = &version.release;
        let left = users.loaded.get(release).map_or(0, |count| count - 1);
        if left > 0 {
            users.loaded.insert(release.clone(), left);
        } else {
            users.loaded.remove(release);
        }
        let is_active = self.is_active(users);
        if is_active {
            users.active = None;
        }
        if dismissed && left == 0 && users.active.is_none() {
            users.dismissed = Some(release.clone());
            Self::clear_dismissed(module, users, until);
        } else if dismissed {
            module.sweep(users);
        } else if is_active && users.record.is_watching() {
            // The node is in order: going down from here on is nobody's doing.
            users.record.end();
            if let Err(problem) = module.at(&mut users.record, |place| place.write()) {
                tracing::warn!(module = %self.manifest.name, problem, "the end of a load can't be noted");
            }
        }
    }

    /// Takes away what was dismissed, unless somebody is on the way to its place: that one replaces it, so that the place
    /// isn't empty meanwhile.
    fn clear_dismissed(module: &Module, users: &mut Users, until: &Until) {
        if module.is_awaiting() {
            return;
        }
        let Some(release) = users.dismissed.take() else {
            return;
        };
        until.within(module.at(&mut users.record, |place| place.patience_to_clear()));
        match module.at(&mut users.record, |place| place.clear(&release)) {
            Ok(()) => tracing::info!(module = module.name(), release, "a kernel module was taken away"),
            Err(problem) => {
                tracing::error!(
                    module = module.name(),
                    release,
                    problem,
                    "a kernel module stays loaded"
                );
            }
        }
        module.sweep(users);
    }
}
