//! From an object to loaded, pinned programs; or, after the agent's restart, to those that are pinned already.

use std::io;
use std::path::PathBuf;

use aya::maps::MapInfo;
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf as Object, EbpfLoader};
use aya_obj::generated::bpf_map_type;
use hotswap_package::{Attached, Ebpf};

use super::counting::Source;
use super::hook::{Hooked, Place};
use super::object::{Inspected, Layout};
use super::pins::Module;
use super::{probe, sys, told};

/// Loads an object's programs once, and lets go of them.
pub(super) fn try_load(ebpf: &Ebpf, object: &[u8]) -> Result<(), String> {
    let mut loaded = open(&mut EbpfLoader::new(), object)?;
    for attached in &ebpf.programs {
        load(&mut loaded, attached)?;
    }
    probe(ebpf, &loaded)
}

/// Sends the manifest's probes through programs that are at no hook yet.
fn probe(ebpf: &Ebpf, loaded: &Object) -> Result<(), String> {
    for attached in &ebpf.programs {
        let program = loaded.program(&attached.name).map(Program::fd);
        if let Some(Ok(program)) = program {
            probe::run(ebpf, attached, program)?;
        }
    }
    Ok(())
}

/// A version's programs, pinned; loaded anew unless they are pinned already.
pub(super) fn programs(
    module: &Module,
    release: &str,
    (ebpf, inspected, object): (&Ebpf, &Inspected, &[u8]),
    places: &[Place],
) -> Result<Vec<Hooked>, String> {
    module
        .make()
        .map_err(|error| format!("the folder for pins can't be made: {error}"))?;
    check_layouts(module, ebpf, inspected)?;
    if !module.has(release) {
        let new: Vec<String> = carried(ebpf)
            .filter(|map| !module.carried(map).exists())
            .collect();
        if let Err(problem) = load_all(module, release, ebpf, object) {
            module.forget(release);
            module.forget_maps(&new);
            module.remove_empty();
            return Err(problem);
        }
    }
    let places = ebpf.programs.iter().zip(places);
    places
        .map(|(attached, place)| {
            Hooked::open(attached, place.clone(), module.program(release, &attached.name))
        })
        .collect()
}

/// Where a version's counters are.
pub(super) fn sources(
    module: &Module,
    release: &str,
    ebpf: &Ebpf,
    inspected: &Inspected,
) -> Result<Vec<Source>, String> {
    let counters = ebpf.counters.iter();
    counters
        .map(|counter| {
            let layout = inspected.maps[&counter.map];
            let is_carried = ebpf.carries(&counter.map);
            let path = map_path(module, release, ebpf, &counter.map);
            let map = sys::get(&path)
                .map_err(|error| format!("the map {} can't be opened: {error}", counter.map))?;
            let processors = aya::util::nr_cpus().map_err(|(what, error)| format!("{what}: {error}"))?;
            Ok(Source {
                counter: counter.clone(),
                map,
                fields: (layout.value_size / 8) as usize,
                values: if layout.is_per_cpu() { processors } else { 1 },
                carried: is_carried,
            })
        })
        .collect()
}

fn carried(ebpf: &Ebpf) -> impl Iterator<Item = String> + '_ {
    ebpf.maps
        .iter()
        .filter(|used| used.carry)
        .map(|used| used.name.clone())
}

fn map_path(module: &Module, release: &str, ebpf: &Ebpf, map: &str) -> PathBuf {
    if ebpf.carries(map) {
        module.carried(map)
    } else {
        module.own_map(release, map)
    }
}

/// Whether the maps that are carried on are what this version takes them for.
fn check_layouts(module: &Module, ebpf: &Ebpf, inspected: &Inspected) -> Result<(), String> {
    for name in carried(ebpf) {
        let path = module.carried(&name);
        if !path.exists() {
            continue;
        }
        let wanted = inspected.maps[&name];
        let there = MapInfo::from_pin(&path).map_err(|error| told(&error))?;
        let kind = bpf_map_type::try_from(wanted.kind)
            .ok()
            .map(aya::maps::MapType::try_from);
        let is_kind = matches!((kind, there.map_type()), (Some(Ok(wanted)), Ok(there)) if wanted == there);
        let is = Layout {
            kind: there.map_type().map_or(0, |kind| kind as u32),
            key_size: there.key_size(),
            value_size: there.value_size(),
            entries_max: there.max_entries(),
        };
        if !is_kind
            || is
                != (Layout {
                    kind: is.kind,
                    ..wanted
                })
        {
            return Err(format!(
                "the map {name} is carried on, and its layout differs: it is a {is}, and this version has a {wanted}; \
                 give the new one another name, or undeploy the module first"
            ));
        }
    }
    Ok(())
}

fn open(loader: &mut EbpfLoader<'_>, object: &[u8]) -> Result<Object, String> {
    // A copy of its own is aligned, as its structures must be.
    let object = object.to_vec();
    let kernel = Btf::from_sys_fs().ok();
    let mut loader = std::mem::take(loader);
    loader.btf(kernel.as_ref()).allow_unsupported_maps();
    loader.load(&object).map_err(|error| told(&error))
}

fn load_all(module: &Module, release: &str, ebpf: &Ebpf, object: &[u8]) -> Result<(), String> {
    let pins = |error: io::Error| format!("the version can't be pinned: {error}");
    let part = module.begin(release).map_err(pins)?;
    let names: Vec<String> = carried(ebpf).collect();
    let mut loader = EbpfLoader::new();
    for name in &names {
        loader.map_pin_path(name, module.carried(name));
    }
    let mut loaded = open(&mut loader, object)?;
    for attached in &ebpf.programs {
        let program = load(&mut loaded, attached)?;
        program
            .pin(part.join(&attached.name))
            .map_err(|error| told(&error))?;
    }
    for counter in &ebpf.counters {
        let path = map_path(module, release, ebpf, &counter.map);
        if path.exists() {
            continue;
        }
        let map = loaded
            .map(&counter.map)
            .ok_or_else(|| format!("there is no map {}", counter.map))?;
        map.pin(path).map_err(|error| told(&error))?;
    }
    probe(ebpf, &loaded)?;
    module.complete(release, &part).map_err(pins)
}

fn load<'a>(loaded: &'a mut Object, attached: &Attached) -> Result<&'a mut Program, String> {
    let name = &attached.name;
    let program = loaded
        .program_mut(name)
        .ok_or_else(|| format!("the object has no program {name}"))?;
    let result = match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::TracePoint(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        Program::BtfTracePoint(program) => {
            let kernel = Btf::from_sys_fs()
                .map_err(|error| format!("this node's kernel doesn't tell its types: {}", told(&error)))?;
            program.load(attached.tracepoint.as_deref().unwrap_or_default(), &kernel)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    match result {
        Ok(()) => Ok(program),
        Err(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) => {
            let log = verifier_log.to_string();
            tracing::warn!(program = name, error = %io_error, "the kernel's verifier refused a program:\n{log}");
            Err(format!(
                "the kernel refused the program {name} ({io_error}); its verifier says: {}; {}",
                gist(&log),
                told_of(&log)
            ))
        }
        Err(error) => Err(format!("the program {name} can't be loaded: {}", told(&error))),
    }
}

/// Most bytes of a verifier's log that are told before all of it: so many fit in a node's report.
const GIST_LEN_MAX: usize = 320;
/// Most bytes of a verifier's log in an error, its last ones: so much is told where a release is checked, and recorded with
/// its deployment. All of it is in the log of this process.
const LOG_LEN_MAX: usize = 64 << 10;

/// As much of a verifier's log as an error holds, and how much that leaves out.
fn told_of(log: &str) -> String {
    let from = log.len().saturating_sub(LOG_LEN_MAX);
    let from = (from..=log.len())
        .find(|at| log.is_char_boundary(*at))
        .unwrap_or_default();
    let end = &log[from..];
    match from {
        0 => format!("its log:\n{end}"),
        from => format!("the end of its log, of which {from} bytes come before:\n{end}"),
    }
}

/// The lines of a verifier's log that say why, which are its last ones before the statistics.
fn gist(log: &str) -> String {
    let lines = log.lines().map(str::trim);
    let words: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !is_statistics(line))
        .collect();
    let mut gist = String::new();
    for line in words.iter().rev() {
        if gist.len() + line.len() + 3 > GIST_LEN_MAX {
            break;
        }
        gist = if gist.is_empty() {
            (*line).to_owned()
        } else {
            format!("{line} | {gist}")
        };
    }
    if gist.is_empty() {
        "nothing".to_owned()
    } else {
        gist
    }
}

fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time", "stack depth"]
        .iter()
        .any(|begins| line.starts_with(begins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gist_of_a_verifiers_log_is_its_last_words() {
        let log = "func#0 @0\n0: R1=ctx() R10=fp0\n; return *(int *)0;\n2: (61) r0 = *(u32 *)(r1 +0)\nR1 invalid mem access \
                   'scalar'\nverification time 40 usec\nstack depth 0\nprocessed 3 insns (limit 1000000)\n";
        let gist = gist(log);
        assert!(
            gist.ends_with("2: (61) r0 = *(u32 *)(r1 +0) | R1 invalid mem access 'scalar'"),
            "{gist}"
        );
        assert!(super::gist(&"x".repeat(10_000)).len() <= GIST_LEN_MAX);
        assert_eq!(super::gist("processed 3 insns\n"), "nothing");
        let long = format!("{}the end", "ä".repeat(LOG_LEN_MAX));
        let told = told_of(&long);
        assert!(told.starts_with(&format!(
            "the end of its log, of which {} bytes come before:\n",
            LOG_LEN_MAX + 7
        )));
        assert!(told.len() < LOG_LEN_MAX + 100 && told.ends_with("the end"));
        assert_eq!(told_of("all"), "its log:\nall");
    }
}
