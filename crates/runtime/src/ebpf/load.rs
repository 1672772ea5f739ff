//! From an object to loaded, pinned programs; or, after the agent's restart, to those that are pinned already.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf as Object, EbpfLoader};
use hotswap_package::{Ebpf, MapUse};

use super::counting::Source;
use super::hook::{Hooked, Place};
use super::migrate::Move;
use super::object::{Inspected, Layout};
use super::pins::{self, Module, Origin};
use super::{elf, migrate, probe, sys, told};

/// Loads an object's programs once, and lets go of them.
pub(super) fn try_load(ebpf: &Ebpf, object: &[u8]) -> Result<(), String> {
    let mut loaded = open(&mut EbpfLoader::new(), object)?;
    for attached in &ebpf.programs {
        load(&mut loaded, &attached.name, attached.tracepoint.as_deref())?;
    }
    for program in movers(ebpf) {
        load(&mut loaded, program, None)?;
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
    (ebpf, object): (&Ebpf, &[u8]),
    maps: &Carried,
    places: &[Place],
) -> Result<Vec<Hooked>, String> {
    module
        .make()
        .map_err(|error| format!("the folder for pins can't be made: {error}"))?;
    let open_all = || -> Result<Vec<Hooked>, String> {
        let places = ebpf.programs.iter().zip(places);
        places
            .map(|(attached, place)| {
                Hooked::open(attached, place.clone(), module.program(release, &attached.name))
            })
            .collect()
    };
    let new: Vec<PathBuf> = maps.values().filter(|map| !map.exists()).cloned().collect();
    if module.has(release) {
        let problem = match open_all() {
            Ok(_) if !new.is_empty() => "a map that it carries on is pinned no more".to_owned(),
            Ok(whole) => return Ok(whole),
            Err(problem) => problem,
        };
        tracing::warn!(
            release,
            problem,
            "a version's pins are not whole; it is loaded anew"
        );
        module
            .set_aside(release)
            .map_err(|error| format!("its former pins can't be put aside: {error}"))?;
    }
    let loaded =
        note_origins(module, ebpf, maps).and_then(|()| load_all(module, release, (ebpf, object), maps));
    if let Err(problem) = loaded {
        module.forget_maps(&new);
        return Err(problem);
    }
    open_all()
}

/// Notes out of which maps entries are moved into those that are to be made: later it is another one that is at work.
fn note_origins(module: &Module, ebpf: &Ebpf, maps: &Carried) -> Result<(), String> {
    let moved = ebpf.maps.iter().filter(|used| used.migrate.is_some());
    for (name, path) in moved.filter_map(|used| maps.get_key_value(&used.name)) {
        if path.exists() {
            continue;
        }
        module.forget_origin(path);
        let at_work = migrate::at_work(module, name)?.map(|map| map.id);
        // Who brings it to the hooks is loaded, and isn't there yet.
        let loaded = || match module.all_carried(name).as_slice() {
            [only] => Some(pins::number(only)),
            _ => None,
        };
        let from = at_work.map(Ok).or_else(loaded).transpose()?;
        if let Some(from) = from {
            let noted = module.note_origin(path, Origin::Map(from));
            noted.map_err(|error| format!("where the map {name} comes from can't be noted: {error}"))?;
        }
    }
    Ok(())
}

/// Where a version's counters are.
pub(super) fn sources(
    module: &Module,
    release: &str,
    (ebpf, inspected): (&Ebpf, &Inspected),
    maps: &Carried,
) -> Result<Vec<Source>, String> {
    let counters = ebpf.counters.iter();
    counters
        .map(|counter| {
            let layout = inspected.maps[&counter.map];
            let carried = maps.get(&counter.map).cloned();
            let path = carried
                .clone()
                .unwrap_or_else(|| module.own_map(release, &counter.map));
            let map = sys::get(&path)
                .map_err(|error| format!("the map {} can't be opened: {error}", counter.map))?;
            let processors = aya::util::nr_cpus().map_err(|(what, error)| format!("{what}: {error}"))?;
            Ok(Source {
                counter: counter.clone(),
                map,
                fields: (layout.value_size / 8) as usize,
                values: if layout.is_per_cpu() { processors } else { 1 },
                carried,
            })
        })
        .collect()
}

/// Where the maps are pinned that a version carries on, by their names.
pub(super) type Carried = BTreeMap<String, PathBuf>;

/// The maps that a version carries on: those that its programs have, those at work if they are of its layout, else new
/// ones.
pub(super) fn carried(
    module: &Module,
    release: &str,
    ebpf: &Ebpf,
    inspected: &Inspected,
) -> Result<Carried, String> {
    let (own, at_work) = (module.maps_of(release)?, module.maps_at_work()?);
    let maps = ebpf.maps.iter().filter(|used| used.carry);
    maps.map(|used| {
        let path = match module.carried_of(&used.name, &own)? {
            Some(path) => path,
            None => carried_path(module, used, &at_work, inspected.maps[&used.name])?,
        };
        Ok((used.name.clone(), path))
    })
    .collect()
}

fn carried_path(
    module: &Module,
    used: &MapUse,
    at_work: &BTreeSet<u32>,
    wanted: Layout,
) -> Result<PathBuf, String> {
    let name = &used.name;
    // What is at work goes on, and no other that a version on standby has: that is as it was when that one left.
    let there = match module.carried_of(name, at_work)? {
        Some(path) => vec![path],
        None => module.all_carried(name),
    };
    let mut other = None;
    for path in there {
        let is = pinned_layout(&path)?;
        if is == wanted {
            return Ok(path);
        }
        other = Some(is);
    }
    match other {
        None => Ok(module.carried(name)),
        Some(_) if used.migrate.is_some() => Ok(free_path(module, name, wanted)),
        Some(is) => Err(format!(
            "the map {name} is carried on, and its layout differs: it is a {is}, and this version has a {wanted}; name a \
             program that moves its entries with migrate, give the new one another name, or undeploy the module first"
        )),
    }
}

/// Where a map of another layout than that at work is to be. One of its layout that is there already is another version's,
/// whose way back finds it as it was.
fn free_path(module: &Module, name: &str, wanted: Layout) -> PathBuf {
    let path = module.carried(&format!("{name}-{}", wanted.suffix()));
    let more = (2_u32..).map(|number| module.carried(&format!("{name}-{}-{number}", wanted.suffix())));
    let mut paths = std::iter::once(path.clone()).chain(more);
    paths.find(|path| !path.exists()).unwrap_or(path)
}

fn pinned_layout(path: &Path) -> Result<Layout, String> {
    MapInfo::from_pin(path)
        .map(|info| layout(&info))
        .map_err(|error| told(&error))
}

/// What the kernel says of a map.
pub(super) fn layout(info: &MapInfo) -> Layout {
    Layout {
        kind: info.map_type().map_or(0, |kind| kind as u32),
        key_size: info.key_size(),
        value_size: info.value_size(),
        entries_max: info.max_entries(),
    }
}

/// The programs that move entries.
fn movers(ebpf: &Ebpf) -> BTreeSet<&str> {
    ebpf.maps
        .iter()
        .filter_map(|used| used.migrate.as_deref())
        .collect()
}

/// What a version takes over from maps of other layouts.
pub(super) fn moves(
    module: &Module,
    release: &str,
    (ebpf, inspected): (&Ebpf, &Inspected),
    maps: &Carried,
) -> Result<Vec<Move>, String> {
    let used = ebpf
        .maps
        .iter()
        .filter_map(|used| Some((used, used.migrate.as_ref()?)));
    used.map(|(used, program)| {
        let open = |path: &Path| {
            sys::get(path).map_err(|error| format!("{} can't be opened: {error}", path.display()))
        };
        let path = &maps[&used.name];
        Ok(Move {
            name: used.name.clone(),
            to: open(path)?,
            path: path.clone(),
            layout: inspected.maps[&used.name],
            program: open(&module.program(release, program))?,
        })
    })
    .collect()
}

fn open(loader: &mut EbpfLoader<'_>, object: &[u8]) -> Result<Object, String> {
    // A copy of its own is aligned, as its structures must be.
    let object = object.to_vec();
    let kernel = Btf::from_sys_fs().ok();
    let mut loader = std::mem::take(loader);
    loader.btf(kernel.as_ref()).allow_unsupported_maps();
    elf::is_sound(&object)?;
    elf::unpanicked(|| loader.load(&object).map_err(|error| told(&error)))
}

fn load_all(
    module: &Module,
    release: &str,
    (ebpf, object): (&Ebpf, &[u8]),
    maps: &Carried,
) -> Result<(), String> {
    let pins = |error: io::Error| format!("the version can't be pinned: {error}");
    let part = module.begin(release).map_err(pins)?;
    let mut loader = EbpfLoader::new();
    for (name, path) in maps {
        loader.map_pin_path(name, path);
    }
    let mut loaded = open(&mut loader, object)?;
    for attached in &ebpf.programs {
        let program = load(&mut loaded, &attached.name, attached.tracepoint.as_deref())?;
        program
            .pin(part.join(&attached.name))
            .map_err(|error| told(&error))?;
    }
    for name in movers(ebpf) {
        let program = load(&mut loaded, name, None)?;
        program.pin(part.join(name)).map_err(|error| told(&error))?;
    }
    for counter in &ebpf.counters {
        let path = module.own_map(release, &counter.map);
        if maps.contains_key(&counter.map) || path.exists() {
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

fn load<'a>(loaded: &'a mut Object, name: &str, tracepoint: Option<&str>) -> Result<&'a mut Program, String> {
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
            program.load(tracepoint.unwrap_or_default(), &kernel)
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
            LOG_LEN_MAX + 8
        )));
        assert!(told.len() < LOG_LEN_MAX + 100 && told.ends_with("the end"));
        assert_eq!(told_of("all"), "its log:\nall");
    }
}
