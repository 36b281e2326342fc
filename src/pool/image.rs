//! The program's mapped code, and kernels as places in it.
//!
//! A kernel crosses as its distance from the anchor, a function of this crate in the same image. A
//! forked worker has the anchor at the same address; a spawned one may map the image elsewhere.
//! Neither side calls an address outside its own image's code.

use core::ops::Range;

/// Marks the address from which the places of kernels are measured.
#[inline(never)]
fn anchor() {}

fn anchor_address() -> u64 {
    (anchor as fn() as *const ()).expose_provenance() as u64
}

/// Returns the distance of a function's address from the anchor. It is valid in every worker. The
/// caller has exposed the provenance of the address, because a worker makes a function pointer from it.
pub(super) fn place_of(address: u64) -> u64 {
    address.wrapping_sub(anchor_address())
}

/// Returns the address of `place` in this process; see [`place_of`].
pub(super) fn address_of(place: u64) -> u64 {
    place.wrapping_add(anchor_address())
}

/// The file that holds the image. A process that maps it elsewhere compares this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    /// Device (as in /proc) and inode of the file, and the anchor's offset in it.
    device: String,
    inode: u64,
    anchor: u64,
}

impl core::fmt::Display for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}/{:x}", self.device, self.inode, self.anchor)
    }
}

/// The code that was mapped in this process when the pool was started.
pub(super) struct Image {
    code: Vec<Range<u64>>,
    /// The part of `code` that comes from the anchor's file.
    own: Vec<Range<u64>>,
    identity: Option<Identity>,
}

impl Image {
    pub(super) fn of_this_process() -> std::io::Result<Image> {
        if cfg!(any(miri, loom)) {
            // The workers are threads of this process, and run its code. Under Miri no mapping
            // contains functions.
            return Ok(Image {
                code: std::iter::once(0..u64::MAX).collect(),
                own: Vec::new(),
                identity: None,
            });
        }
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let mappings: Vec<Mapping<'_>> = maps.lines().filter_map(Mapping::parse).collect();
        let anchor = anchor_address();
        let home = mappings
            .iter()
            .find(|mapping| mapping.range.contains(&anchor));
        let code = |wanted: &dyn Fn(&Mapping<'_>) -> bool| {
            let executable = mappings
                .iter()
                .filter(|map| map.is_executable && wanted(map));
            executable.map(|map| map.range.clone()).collect()
        };
        Ok(Image {
            code: code(&|_| true),
            own: code(&|map| home.is_some_and(|home| home.file() == map.file())),
            identity: home.map(|home| Identity {
                device: home.device.to_owned(),
                inode: home.inode,
                anchor: anchor - home.range.start + home.offset,
            }),
        })
    }

    /// Returns `true` if code is mapped at `address`.
    pub(super) fn contains(&self, address: u64) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }

    /// Returns `true` if `address` is in the code of the anchor's file.
    pub(super) fn is_own(&self, address: u64) -> bool {
        self.own.iter().any(|range| range.contains(&address))
    }

    /// Returns the identity of the anchor's file.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// A line of /proc/self/maps.
struct Mapping<'l> {
    range: Range<u64>,
    is_executable: bool,
    offset: u64,
    device: &'l str,
    inode: u64,
}

impl<'l> Mapping<'l> {
    fn parse(line: &'l str) -> Option<Mapping<'l>> {
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let is_executable = fields.next()?.contains('x');
        Some(Mapping {
            range: hex(start)?..hex(end)?,
            is_executable,
            offset: hex(fields.next()?)?,
            device: fields.next()?,
            inode: fields.next()?.parse().ok()?,
        })
    }

    fn file(&self) -> (&'l str, u64) {
        (self.device, self.inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_this_crate_is_in_the_image() {
        let image = Image::of_this_process().unwrap();
        let here = a_function_of_this_crate_is_in_the_image as *const () as u64;
        assert!(image.contains(here) && image.is_own(here));
        let stack = &raw const image as u64;
        assert!(!image.contains(stack), "the stack is not code");
        let libc = libc::getpid as *const () as u64;
        assert!(image.contains(libc) && !image.is_own(libc));
        assert_eq!(
            image.identity(),
            Image::of_this_process().unwrap().identity()
        );
    }

    #[test]
    fn lines_of_maps() {
        let line = "55d0-55ff r-xp 00001000 08:01 1234  /bin/cat";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!(
            (mapping.range.clone(), mapping.offset),
            (0x55d0..0x55ff, 0x1000)
        );
        assert!(mapping.is_executable && mapping.file() == ("08:01", 1234));
        assert!(Mapping::parse("nonsense").is_none());
    }
}
