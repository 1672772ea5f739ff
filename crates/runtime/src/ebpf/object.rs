//! What an object is made of, and whether its manifest tells the truth about it. No privilege is needed.

use std::collections::BTreeMap;

use aya_obj::generated::{BPF_F_NO_COMMON_LRU, bpf_map_type};
use aya_obj::maps::PinningType;
use aya_obj::programs::XdpAttachType;
use aya_obj::{Object, ProgramSection};
use hotswap_package::{Attached, Counter, Hook, Manifest};
use object::Object as _;

use super::{elf, hook, migrate};

/// Where an object's license stands. Without it one that nobody gave would be assumed.
const LICENSE_SECTION: &str = "license";

/// What an object is made of.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The license that the kernel is told.
    pub license: String,
    /// Programs that are attached.
    pub programs: usize,
    /// Those of them that can't take their predecessor's place in one step.
    overlapping: Vec<String>,
    /// Its maps by name.
    pub(super) maps: BTreeMap<String, Layout>,
}

/// What must be the same for a map to be carried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) entries_max: u32,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match bpf_map_type::try_from(self.kind) {
            Ok(kind) => format!("{kind:?}").replace("BPF_MAP_TYPE_", "").to_lowercase(),
            Err(_) => format!("type {}", self.kind),
        };
        write!(
            f,
            "{kind} of {} entries with keys of {} and values of {} bytes",
            self.entries_max, self.key_size, self.value_size
        )
    }
}

impl Layout {
    fn is_of(self, kinds: &[bpf_map_type]) -> bool {
        kinds.iter().any(|kind| self.kind == *kind as u32)
    }

    /// What becomes of it on this machine: aya and the kernel give some kinds other sizes than their object does.
    fn as_made(mut self, flags: u32) -> Self {
        let processors = aya::util::nr_cpus().ok();
        let processors = processors.and_then(|count| u32::try_from(count).ok());
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
        let of_processors = self.is_of(&[bpf_map_type::BPF_MAP_TYPE_PERF_EVENT_ARRAY]);
        let has_list_per_processor = flags & BPF_F_NO_COMMON_LRU != 0
            && self.is_of(&[
                bpf_map_type::BPF_MAP_TYPE_LRU_HASH,
                bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
            ]);
        match processors {
            Some(processors) if of_processors && self.entries_max == 0 => self.entries_max = processors,
            Some(processors) if has_list_per_processor => {
                let most = u32::MAX / processors * processors;
                let rounded = self.entries_max.checked_next_multiple_of(processors);
                self.entries_max = rounded.unwrap_or(most);
            }
            _ => {}
        }
        if self.is_of(&[bpf_map_type::BPF_MAP_TYPE_RINGBUF]) {
            let pages = self.entries_max.div_ceil(page).checked_next_power_of_two();
            let bytes = pages.and_then(|pages| pages.checked_mul(page));
            self.entries_max = bytes.unwrap_or(self.entries_max);
            self.value_size = 0;
        }
        // On all kernels that have the hooks: a number and a program.
        if self.is_of(&[
            bpf_map_type::BPF_MAP_TYPE_DEVMAP,
            bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH,
            bpf_map_type::BPF_MAP_TYPE_CPUMAP,
        ]) {
            self.value_size = 8;
        }
        self
    }

    /// Whether a value is kept for each processor.
    pub(super) fn is_per_cpu(self) -> bool {
        self.kind == bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32
    }

    pub(super) fn is_array(self) -> bool {
        self.is_per_cpu() || self.kind == bpf_map_type::BPF_MAP_TYPE_ARRAY as u32
    }

    /// Whether entries can be moved out of such a map and into it: its values are of the size that it names, or of that
    /// size for each processor.
    pub(super) fn is_movable(self) -> bool {
        self.is_array() || self.is_hash()
    }

    fn is_hash(self) -> bool {
        self.is_of(&[
            bpf_map_type::BPF_MAP_TYPE_HASH,
            bpf_map_type::BPF_MAP_TYPE_LRU_HASH,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
            bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
        ])
    }

    /// Whether a value is kept for each processor, in arrays and in tables.
    pub(super) fn has_value_per_processor(self) -> bool {
        self.is_per_cpu()
            || self.is_of(&[
                bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
                bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
            ])
    }

    /// What a map of this layout adds to its name where another one has the name already.
    pub(super) fn suffix(self) -> String {
        let Self {
            kind,
            key_size,
            value_size,
            entries_max,
        } = self;
        format!("{kind}-{key_size}-{value_size}-{entries_max}")
    }
}

impl Inspected {
    /// A sentence's part about it.
    pub fn summary(&self) -> String {
        let mut summary = format!(
            "{} program(s) and {} map(s), licensed {}, with BTF",
            self.programs,
            self.maps.len(),
            self.license
        );
        if !self.overlapping.is_empty() {
            let names = self.overlapping.join(", ");
            summary += &format!(
                "; tracepoints have no swap in one step: {names} is attached before the former version leaves, and both \
                 see what happens in between"
            );
        }
        summary
    }
}

/// Looks at an object as its manifest describes it.
///
/// # Errors
/// What is wrong with it, in words that its author can act on.
pub fn inspect(manifest: &Manifest, object: &[u8]) -> Result<Inspected, String> {
    let ebpf = manifest.ebpf.as_ref().ok_or("the manifest has no [ebpf]")?;
    // A copy of its own is aligned, as its structures must be.
    let bytes = object.to_vec();
    let parsed = elf::parse(&bytes)?;
    if parsed.btf.is_none() {
        return Err("the object has no BTF; compile it with -g".to_owned());
    }
    let license = parsed.license.to_string_lossy().into_owned();
    let file = object::File::parse(&*bytes);
    let has_license = file.is_ok_and(|file| file.section_by_name(LICENSE_SECTION).is_some());
    if !has_license || license.is_empty() {
        return Err(
            "the object names no license; give one, such as char LICENSE[] SEC(\"license\") = \"GPL\""
                .to_owned(),
        );
    }
    for attached in &ebpf.programs {
        look_at_program(attached, &parsed)?;
    }
    let mut maps = BTreeMap::new();
    for (name, map) in &parsed.maps {
        if map.pinning() == PinningType::ByName {
            return Err(format!(
                "the map {name} is pinned by the object; leave that out, and say carry = true in the manifest"
            ));
        }
        let layout = Layout {
            kind: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            entries_max: map.max_entries(),
        };
        maps.insert(name.clone(), layout.as_made(map.map_flags()));
    }
    for used in &ebpf.maps {
        let layout = layout_of(&maps, &used.name)?;
        if let Some(program) = &used.migrate {
            look_at_move(&used.name, layout, program, &parsed)?;
        }
    }
    for counter in &ebpf.counters {
        look_at_counter(counter, layout_of(&maps, &counter.map)?)?;
    }
    Ok(Inspected {
        license,
        programs: ebpf.programs.len(),
        overlapping: ebpf
            .programs
            .iter()
            .filter(|program| !program.attach.swaps_in_one_step())
            .map(|program| program.name.clone())
            .collect(),
        maps,
    })
}

fn layout_of(maps: &BTreeMap<String, Layout>, name: &str) -> Result<Layout, String> {
    maps.get(name).copied().ok_or_else(|| {
        let there = maps.keys().cloned().collect::<Vec<_>>().join(", ");
        format!("the object has no map {name}; it has {there}")
    })
}

fn look_at_program(attached: &Attached, object: &Object) -> Result<(), String> {
    let (name, attach) = (&attached.name, attached.attach);
    let Some(program) = object.programs.get(name) else {
        let mut there: Vec<_> = object.programs.keys().cloned().collect();
        there.sort();
        let there = there.join(", ");
        return Err(format!("the object has no program {name}; it has {there}"));
    };
    let section = attach.section();
    let wanted = hook::attach_type(attach);
    let fits = match &program.section {
        ProgramSection::Xdp { attach_type, .. } => {
            attach == Hook::Xdp && matches!(attach_type, XdpAttachType::Interface)
        }
        ProgramSection::SchedClassifier => matches!(attach, Hook::TcxIngress | Hook::TcxEgress),
        ProgramSection::CgroupSkb { attach_type: None } => {
            matches!(attach, Hook::CgroupSkbIngress | Hook::CgroupSkbEgress)
        }
        ProgramSection::CgroupSkb {
            attach_type: Some(kind),
        } => wanted == (*kind).into(),
        ProgramSection::CgroupSockAddr { attach_type } => wanted == (*attach_type).into(),
        ProgramSection::CgroupSock { attach_type } => wanted == (*attach_type).into(),
        ProgramSection::SockOps => attach == Hook::CgroupSockOps,
        ProgramSection::TracePoint => attach == Hook::Tracepoint,
        ProgramSection::RawTracePoint => attach == Hook::RawTracepoint,
        ProgramSection::BtfTracePoint => attach == Hook::TpBtf,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(format!(
        "the program {name} is of section {:?}, and the manifest attaches it to {attach}; its section should be \
         {section:?}",
        program.section
    ))
}

fn look_at_move(map: &str, layout: Layout, program: &str, object: &Object) -> Result<(), String> {
    if !layout.is_movable() {
        return Err(format!(
            "the map {map} is a {layout}; entries are moved into arrays and hash tables, also those per CPU"
        ));
    }
    if layout.entries_max > migrate::ENTRIES_MAX || migrate::frame_bytes(layout) > migrate::FRAME_BYTES_MAX {
        let (entries, bytes) = (migrate::ENTRIES_MAX, migrate::FRAME_BYTES_MAX);
        return Err(format!(
            "the map {map} is a {layout}; at most {entries} entries are moved, of at most {bytes} bytes with both values"
        ));
    }
    let section = object.programs.get(program).map(|program| &program.section);
    match section {
        None => Err(format!(
            "the object has no program {program}, which is to move the entries of {map}; give it one of section \"xdp\""
        )),
        Some(ProgramSection::Xdp {
            attach_type: XdpAttachType::Interface,
            ..
        }) => Ok(()),
        Some(other) => Err(format!(
            "the program {program}, which is to move the entries of {map}, is of section {other:?}; it should be \"xdp\""
        )),
    }
}

fn look_at_counter(counter: &Counter, layout: Layout) -> Result<(), String> {
    let name = &counter.map;
    let is_numbers = layout.value_size > 0 && layout.value_size.is_multiple_of(8);
    if !layout.is_array() || layout.key_size != 4 || !is_numbers {
        return Err(format!(
            "the map {name} is a {layout}; counters are in an array or a per-CPU array whose values are numbers of 8 \
             bytes"
        ));
    }
    if counter.index >= layout.entries_max || counter.field >= layout.value_size / 8 {
        return Err(format!(
            "the counter of {} is number {} of value {} of the map {name}, which is a {layout}",
            counter.counts.as_str(),
            counter.field,
            counter.index
        ));
    }
    Ok(())
}
