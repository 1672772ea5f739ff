//! Kernel modules in a virtual machine: the real agent inside, the real server outside. `cargo xtask test --vm` makes what
//! is booted; without it these tests say so and do nothing.

mod authoring;
mod guest;

use guest::{Guest, Machine, prepared};

const GATED: &str = "style = \"gated\"\ngate = \"hotswap_gate\"\n[[kernel.counters]]\ncounts = \"requests\"\nfile = \
                     \"/sys/module/hotswap_gate/parameters/requests\"";
const PLAIN: &str = "module = \"hotswap_plain\"";
const PATCHED: &str = "this has been live patched by Hotswap";

fn push_plain(guest: &Guest, version: &str) {
    let file = format!("hotswap_plain-{version}.ko");
    guest.push("plain", version, (PLAIN, &file));
}

fn push_patch(guest: &Guest) {
    let patch = (
        "module = \"hotswap_patch\"\nstyle = \"livepatch\"",
        "hotswap_patch.ko",
    );
    guest.push("cmdline-patch", "1.0.0", patch);
}

#[test]
fn modules_are_swapped_taken_back_and_left_out_after_a_panic() {
    let Some(vm) = prepared() else { return };
    let guest = Guest::boot(&vm, Machine::default());
    let gate = ("module = \"hotswap_gate\"", "hotswap_gate.ko");
    guest.push("request-gate", "1.0.0", gate);
    for version in ["1.0.0", "1.1.0"] {
        let module = format!("greeter_{}", version.replace('.', "_"));
        let kernel = format!("module = \"{module}\"\n{GATED}");
        guest.push("greeter", version, (&kernel, &format!("{module}.ko")));
    }
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
        push_plain(&guest, version);
    }
    push_patch(&guest);

    // A livepatch, on and off.
    guest.deploys("cmdline-patch", "1.0.0");
    guest.eventually_is("cmdline", |line| line.starts_with(PATCHED));
    println!("          the transition: {}", guest.last_swap());
    guest.undeploys("cmdline-patch");
    guest.eventually_is("cmdline", |line| line.contains("console=ttyS0"));

    // Plain, and one whose init fails.
    guest.deploys("plain", "1.0.0");
    guest.deploys("plain", "1.1.0");
    guest.eventually_is("plain", |version| version == "1.1.0");
    println!("          the swap: {}", guest.last_swap());
    let why = guest.fails("plain", "1.2.0");
    assert!(why.contains("its own start failed"), "{why}");
    guest.eventually_is("plain", |version| version == "1.1.0");

    // Behind the gate, under a reader that never stops.
    guest.deploys("request-gate", "1.0.0");
    guest.deploys("greeter", "1.0.0");
    guest.eventually_is("reader", |reader| reader.ends_with("1.0.0"));
    guest.deploys("greeter", "1.1.0");
    guest.eventually_is("reader", |reader| reader.ends_with("1.1.0"));
    println!("          the swap: {}", guest.last_swap());
    let (served, unserved) = guest.calls();
    println!("          {served} calls served, {unserved} unserved");
    assert_eq!(unserved, 0);

    // A candidate that takes the node with it, while others are not ten seconds old: only it is left out.
    let why = guest.fails("plain", "1.3.0");
    let left = "left the release by itself: the node went down while 1.3.0 was being loaded";
    assert!(why.contains(left), "{why}");
    assert_eq!(guest.boots(), 2, "one reboot");
    guest.eventually_is("plain", |version| version == "1.1.0");
    guest.eventually_is("reader", |reader| reader.ends_with("1.1.0"));
    guest.tell("in all");
}

#[test]
fn only_modules_that_are_signed_by_a_key_of_the_machines_are_loaded_where_that_is_enforced() {
    let Some(vm) = prepared() else { return };
    let has_key = vm.join("variables.fd").exists();
    if !has_key {
        println!("left out: no firmware was made that trusts a key; only what isn't signed is tried");
    }
    let guest = Guest::boot(
        &vm,
        Machine {
            kernel_arguments: "module.sig_enforce=1",
            has_key,
            ..Machine::default()
        },
    );
    push_plain(&guest, "1.0.0");
    let why = guest.fails("plain", "1.0.0");
    let refused = "loads only modules with a signature by a key that it trusts";
    assert!(why.contains(refused), "{why}");
    if has_key {
        let file = "hotswap_plain-signed.ko";
        guest.push("plain", "1.1.0", (PLAIN, file));
        guest.deploys("plain", "1.1.0");
        guest.eventually_is("plain", |version| version == "1.1.0");
        let mut tampered = std::fs::read(vm.join("modules").join(file)).unwrap();
        let version = tampered.windows(6).position(|text| text == b"1.1.0\0").unwrap();
        tampered[version..version + 5].copy_from_slice(b"1.5.0");
        guest.push_file("plain", "1.5.0", (PLAIN, file), &tampered);
        let why = guest.fails("plain", "1.5.0");
        assert!(why.contains(refused), "{why}");
        guest.eventually_is("plain", |version| version == "1.1.0");
    }
    guest.tell("in all");
}

#[test]
fn a_livepatch_that_stalls_is_reversed_and_a_load_that_hangs_is_ended_by_the_watchdog() {
    let Some(vm) = prepared() else { return };
    let guest = Guest::boot(
        &vm,
        Machine {
            agent_arguments: "--set agent.watchdog=/dev/watchdog",
            ..Machine::default()
        },
    );
    let sleeper = ("module = \"hotswap_sleeper\"", "hotswap_sleeper.ko");
    guest.push("sleeper", "1.0.0", sleeper);
    push_patch(&guest);
    let stalls = (
        "module = \"hotswap_patch_stalls\"\nstyle = \"livepatch\"\ndeadline = \"3s\"",
        "hotswap_patch_stalls.ko",
    );
    guest.push("cmdline-patch", "1.1.0", stalls);
    push_plain(&guest, "1.0.0");
    let hangs = (
        "module = \"hotswap_plain\"\ndeadline = \"2s\"",
        "hotswap_plain-1.4.0.ko",
    );
    guest.push("plain", "1.4.0", hangs);

    guest.deploys("sleeper", "1.0.0");
    guest.deploys("cmdline-patch", "1.0.0");
    let why = guest.fails("cmdline-patch", "1.1.0");
    for part in [
        "transition was not over",
        "held up by hotswap_sleeper",
        "it was reversed within",
    ] {
        assert!(why.contains(part), "{why}");
    }
    guest.eventually_is("cmdline", |line| line.starts_with(PATCHED));

    guest.deploys("plain", "1.0.0");
    let begun = guest.elapsed();
    let why = guest.fails("plain", "1.4.0");
    guest.eventually_booted(2);
    println!(
        "{:6.1} s  from the deployment to the second boot",
        (guest.elapsed() - begun).as_secs_f64()
    );
    // The node may tell that a load hangs before it goes down with it.
    let told = [
        "the node went down while 1.4.0 was being loaded",
        "the kernel has been loading for more than",
    ];
    assert!(told.iter().any(|part| why.contains(part)), "{why}");
    guest.eventually_is("plain", |version| version == "1.0.0");
    guest.eventually_is("cmdline", |line| line.starts_with(PATCHED));
    assert_eq!(guest.boots(), 2, "one reset");
    guest.tell("in all");
}
