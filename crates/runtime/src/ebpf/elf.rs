//! From bytes that anybody may have made to a parsed object. aya's parser believes what an object says of itself: it
//! makes room for as many zeros as a section claims, and takes a symbol's bytes out of its section wherever that ends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use aya_obj::Object;
use object::read::{Object as _, ObjectSection as _, ObjectSymbol as _};
use object::{File, SectionKind};

use super::told;

/// Largest object, in bytes: the largest known ones have some hundred KiB.
const OBJECT_BYTES_MAX: usize = 8 << 20;
/// Most bytes of an object that are not in its file, which become maps of zeros.
const ZEROS_BYTES_MAX: u64 = 4 << 20;
/// Most bytes of all functions and variables: each is copied, and an object may give the same bytes many names.
const SYMBOLS_BYTES_MAX: u64 = 2 * (OBJECT_BYTES_MAX as u64 + ZEROS_BYTES_MAX);
/// What the section of variables that begin as zeros is called, or begins with.
const ZEROS_SECTION: &str = ".bss";

/// Parses an object that keeps to what it may claim.
pub(super) fn parse(bytes: &[u8]) -> Result<Object, String> {
    let no_object = |problem: String| format!("it is no eBPF object: {problem}");
    is_sound(bytes).map_err(no_object)?;
    unpanicked(|| Object::parse(bytes).map_err(|error| told(&error))).map_err(no_object)
}

/// Runs a parser that may panic on what it didn't expect: an object has to be refused then, not its reader ended.
pub(super) fn unpanicked<T>(parse: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let broken = |_| Err("it is not what an eBPF object is, and its parser gave up".to_owned());
    catch_unwind(AssertUnwindSafe(parse)).unwrap_or_else(broken)
}

/// Whether all that an object says of its size is so, and within limits.
pub(super) fn is_sound(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(format!(
            "it has {} bytes; at most {OBJECT_BYTES_MAX}",
            bytes.len()
        ));
    }
    let file = File::parse(bytes).map_err(|error| error.to_string())?;
    sections_are_sound(&file)?;
    symbols_are_sound(&file)
}

fn sections_are_sound(file: &File<'_>) -> Result<(), String> {
    let (mut zeros, mut kept) = (0, 0);
    for section in file.sections() {
        let name = section.name().map_err(|error| error.to_string())?;
        if section.address() != 0 {
            return Err(format!(
                "the section {name} has an address, as a linked program's have; give the object that clang -c makes"
            ));
        }
        let size = section.size();
        let is_zeros = section.kind() == SectionKind::UninitializedData;
        let sum = if is_zeros { &mut zeros } else { &mut kept };
        *sum = u64::saturating_add(*sum, size);
        let data = section
            .data()
            .map_err(|error| format!("the section {name}: {error}"))?;
        let has_all = data.len() as u64 == size || (is_zeros && name.starts_with(ZEROS_SECTION));
        if size > 0 && !has_all {
            return Err(format!(
                "the section {name} has {size} bytes, of which {} are in the file; only {ZEROS_SECTION} may have fewer",
                data.len()
            ));
        }
    }
    if zeros > ZEROS_BYTES_MAX {
        return Err(format!(
            "its variables that begin as zeros have {zeros} bytes; at most {ZEROS_BYTES_MAX}: use a map for so many"
        ));
    }
    if kept > OBJECT_BYTES_MAX as u64 {
        return Err(format!(
            "its sections have {kept} bytes, more than its file may have, {OBJECT_BYTES_MAX}: they overlap"
        ));
    }
    Ok(())
}

fn symbols_are_sound(file: &File<'_>) -> Result<(), String> {
    let mut all = 0_u64;
    for symbol in file.symbols() {
        let Some(index) = symbol.section_index() else {
            continue;
        };
        let name = symbol.name().map_err(|error| error.to_string())?;
        let section = file
            .section_by_index(index)
            .map_err(|error| format!("the section of the symbol {name:?}: {error}"))?;
        let end = symbol.address().checked_add(symbol.size());
        if end.is_none_or(|end| end > section.size()) {
            return Err(format!(
                "the symbol {name:?} has {} bytes from {} on, and its section {} has {}",
                symbol.size(),
                symbol.address(),
                section.name().unwrap_or_default(),
                section.size()
            ));
        }
        all = all.saturating_add(symbol.size());
    }
    if all > SYMBOLS_BYTES_MAX {
        return Err(format!(
            "its functions and variables have {all} bytes in all; at most {SYMBOLS_BYTES_MAX}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &[u8] = include_bytes!("../../../../modules/ebpf/packet-limiter/1.1.0/packet-limiter.o");
    /// Where the fields of a section's header are.
    const KIND: usize = 4;
    const ADDRESS: usize = 16;
    const OFFSET: usize = 24;
    const SIZE: usize = 32;
    const NOBITS: u32 = 8;

    /// The example, whose headers can be changed.
    struct Elf(Vec<u8>);

    impl Elf {
        fn new() -> Self {
            Self(EXAMPLE.to_vec())
        }

        fn number(&self, at: usize, bytes: usize) -> usize {
            let mut number = [0; 8];
            number[..bytes].copy_from_slice(&self.0[at..at + bytes]);
            usize::try_from(u64::from_le_bytes(number)).unwrap()
        }

        fn put(&mut self, at: usize, bytes: &[u8]) {
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
        }

        /// Where a section's header is.
        fn header(&self, name: &str) -> usize {
            let file = File::parse(&*self.0).unwrap();
            let index = file.section_by_name(name).unwrap().index().0;
            self.number(40, 8) + index * self.number(58, 2)
        }

        /// Gives a section another name, which is no longer.
        fn rename(&mut self, name: &str, other: &str) {
            let names = self.number(40, 8) + self.number(62, 2) * self.number(58, 2);
            let at = self.number(names + OFFSET, 8) + self.number(self.header(name), 4);
            self.put(at, other.as_bytes());
            self.put(at + other.len(), &[0]);
        }

        /// Where a symbol's entry is.
        fn symbol(&self, name: &str) -> usize {
            let file = File::parse(&*self.0).unwrap();
            let index = file.symbol_by_name(name).unwrap().index().0;
            let table = self.header(".symtab");
            self.number(table + OFFSET, 8) + index * 24
        }

        fn refused(&self) -> String {
            parse(&self.0).expect_err("it is refused")
        }
    }

    #[test]
    fn a_section_of_more_zeros_than_there_is_memory_is_refused() {
        assert!(parse(EXAMPLE).is_ok());
        let mut elf = Elf::new();
        let header = elf.header(".llvm_addrsig");
        elf.rename(".llvm_addrsig", ".bss");
        elf.put(header + KIND, &NOBITS.to_le_bytes());
        elf.put(header + SIZE, &4096_u64.to_le_bytes());
        assert!(parse(&elf.0).is_ok(), "some zeros are usual");
        elf.put(header + SIZE, &(1_u64 << 47).to_le_bytes());
        assert_eq!(
            elf.refused(),
            "it is no eBPF object: its variables that begin as zeros have 140737488355328 bytes; at most 4194304: use a \
             map for so many"
        );
        // Of a section that isn't zeros, as many would be read as it says that it has.
        let mut elf = Elf::new();
        let header = elf.header(".llvm_addrsig");
        elf.rename(".llvm_addrsig", ".data");
        elf.put(header + KIND, &NOBITS.to_le_bytes());
        let why = elf.refused();
        assert!(
            why.contains("the section .data has") && why.contains("of which 0 are in the file"),
            "{why}"
        );
    }

    #[test]
    fn a_symbol_beyond_its_section_is_refused() {
        for (field, value) in [(8, 1 << 20), (16, 1 << 20), (8, u64::MAX), (16, u64::MAX)] {
            let mut elf = Elf::new();
            let symbol = elf.symbol("limit");
            elf.put(symbol + field, &u64::to_le_bytes(value));
            let why = elf.refused();
            assert!(why.contains("the symbol \"limit\" has"), "{why}");
        }
        let mut elf = Elf::new();
        let header = elf.header("xdp");
        elf.put(header + ADDRESS, &8_u64.to_le_bytes());
        assert!(elf.refused().contains("the section xdp has an address"));
    }

    #[test]
    fn sections_that_overlap_are_refused_where_they_would_be_many_times_the_file() {
        let mut elf = Elf::new();
        elf.0.resize(OBJECT_BYTES_MAX, 0);
        for name in [".text", ".llvm_addrsig"] {
            let header = elf.header(name);
            elf.put(header + OFFSET, &0_u64.to_le_bytes());
            elf.put(header + SIZE, &(OBJECT_BYTES_MAX as u64).to_le_bytes());
        }
        assert!(elf.refused().contains("they overlap"));
        elf.0.push(0);
        assert!(elf.refused().contains("at most 8388608"));
    }

    #[test]
    fn a_parser_that_panics_refuses() {
        let panics = || -> Result<(), String> { panic!("out of range") };
        assert!(unpanicked(panics).unwrap_err().contains("its parser gave up"));
    }
}
