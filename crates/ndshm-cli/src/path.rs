//! Paths: `model/weights/3` leads from a name over a bundle's part to an element.

use std::collections::{HashMap, HashSet};

use ndshm::element::DType;
use ndshm::error::{BundleError, LeaseError, NameError};
use ndshm::inspect::{ArrayInfo, BundleInfo};
use ndshm::{AnyHandle, BundleHandle, Observer};

use crate::output::{Failure, escaped};

/// The text of the element type with which the Python package stores an object.
const PICKLED: &str = "pickled object";

/// The content of an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Elements.
    Array,
    /// A value that a Rust program has stored.
    Object,
    /// A value that a Python program has pickled.
    Pickled,
}

impl Kind {
    /// Returns the kind of an array with these elements.
    pub fn of(dtype: &DType) -> Kind {
        match dtype {
            dtype if Observer::is_object(dtype) => Kind::Object,
            DType::Opaque(opaque) if opaque.text() == PICKLED && opaque.size() == 1 => {
                Kind::Pickled
            }
            _ => Kind::Array,
        }
    }

    /// Returns the word for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Array => "array",
            Kind::Object => "object",
            Kind::Pickled => "python",
        }
    }

    /// Formats dtype and shape for a table. Those of an object are of no interest.
    pub fn describe(info: &ArrayInfo) -> (String, String) {
        match Kind::of(&info.dtype) {
            Kind::Array => (
                escaped(&info.dtype.to_string()),
                format!("{:?}", info.shape),
            ),
            Kind::Object => ("object".into(), "-".into()),
            Kind::Pickled => ("Python object".into(), "-".into()),
        }
    }
}

/// The place to which a path leads.
pub enum Found {
    /// A bundle.
    Bundle(BundleInfo),
    /// An array, and the rest of the path, which leads into it.
    Array(ArrayInfo, Vec<String>),
}

/// Follows a path. It begins with a handle or a name, which may itself contain slashes.
pub fn find(observer: &Observer, path: &str) -> Result<Found, Failure> {
    let (root, rest) = root(observer, path)?;
    match observer.bundle(BundleHandle::from_bits(root.to_bits())) {
        Ok(bundle) => {
            let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
                return Ok(Found::Bundle(bundle));
            };
            let part = divisions(rest).find_map(|(name, after)| {
                let part = bundle.parts.iter().find(|part| part.name == name)?;
                Some((part.handle, after))
            });
            match part {
                Some((handle, after)) => Ok(Found::Array(observer.info(handle)?, steps(after))),
                None => Err(no_part(&path[..path.len() - rest.len() - 1], rest, &bundle)),
            }
        }
        Err(BundleError::Lease(LeaseError::WrongKind(_))) => {
            Ok(Found::Array(observer.info(root)?, steps(rest)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Finds the array that a path leads to, for a command that needs its numbers.
pub fn array(observer: &Observer, path: &str) -> Result<ArrayInfo, Failure> {
    match find(observer, path)? {
        Found::Array(info, rest) => match (Kind::of(&info.dtype), &rest[..]) {
            (Kind::Array, []) => Ok(info),
            (Kind::Array, rest) if rest.iter().all(String::is_empty) => Ok(info),
            (Kind::Array, rest) => Err(Failure::not_found(format_args!(
                "{path}: an array has no part {:?}, and this command takes whole arrays as paths: \
                 ndshm get prints elements",
                rest.join("/")
            ))),
            (Kind::Object | Kind::Pickled, _) => Err(Failure::usage(format_args!(
                "{path} leads to an object, and this command takes arrays: ndshm get prints objects"
            ))),
        },
        Found::Bundle(bundle) => Err(Failure::usage(format_args!(
            "{path} is a bundle: name one of its parts, {}",
            listed(&bundle, path)
        ))),
    }
}

/// Returns the handle at the beginning of a path, and the rest of the path.
fn root<'p>(observer: &Observer, path: &'p str) -> Result<(AnyHandle, Option<&'p str>), Failure> {
    for (name, rest) in divisions(path) {
        if let Ok(handle) = name.parse::<AnyHandle>() {
            return Ok((handle, rest));
        }
        match observer.find(name) {
            Ok(handle) => return Ok((handle, rest)),
            // A path may be longer than a name can be.
            Err(NameError::Length { .. }) if name.contains('/') => {}
            Err(NameError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::not_found(format_args!(
        "nothing is called {path:?}: see ndshm show"
    )))
}

/// Divides a path at each of its slashes, the longest beginning first.
fn divisions(path: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let slashes = path.rmatch_indices('/');
    let divided = slashes.map(|(at, _)| (&path[..at], Some(&path[at + 1..])));
    std::iter::once((path, None)).chain(divided)
}

/// Divides the rest of a path. Steps may be empty, as keys may be.
fn steps(path: Option<&str>) -> Vec<String> {
    let steps = path.into_iter().flat_map(|path| path.split('/'));
    steps.map(str::to_owned).collect()
}

/// Returns `true` if a path leads to something else than a part of `parent`: `taken` has a longer
/// beginning of it.
pub fn is_shadowed(path: &str, parent: &str, taken: impl Fn(&str) -> bool) -> bool {
    divisions(path)
        .take_while(|(start, _)| start.len() > parent.len())
        .any(|(start, _)| taken(start))
}

fn no_part(path: &str, part: &str, bundle: &BundleInfo) -> Failure {
    Failure::not_found(format_args!(
        "the bundle {path} has no part {part:?}; it has {}",
        listed(bundle, path)
    ))
}

/// Names some parts of a bundle, each by its path.
fn listed(bundle: &BundleInfo, path: &str) -> String {
    const FEW: usize = 8;
    let parts = bundle.parts.iter().take(FEW);
    let named: Vec<String> = parts.map(|part| format!("{path}/{}", part.name)).collect();
    match bundle.parts.len() {
        0 => "no parts".into(),
        1..=FEW => named.join(", "),
        all => format!("{} and {} more", named.join(", "), all - FEW),
    }
}

/// Returns the names of everything that has any, and the paths of the parts of bundles.
pub fn all(observer: &Observer) -> Result<HashMap<u64, Vec<String>>, NameError> {
    let mut paths = HashMap::<u64, Vec<String>>::new();
    let named = observer.names("")?;
    let taken: HashSet<String> = named.iter().map(|info| info.name.clone()).collect();
    for info in named {
        let names = paths.entry(info.handle.to_bits()).or_default();
        names.push(info.name);
    }
    for bundle in observer.bundles() {
        let parents = match paths.get(&bundle.handle.to_bits()) {
            Some(names) => names.clone(),
            None => vec![AnyHandle::from(bundle.handle).to_string()],
        };
        for part in &bundle.parts {
            for parent in &parents {
                let path = format!("{parent}/{}", part.name);
                if !is_shadowed(&path, parent, |start| taken.contains(start)) {
                    paths.entry(part.handle.to_bits()).or_default().push(path);
                }
            }
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_divided_at_each_slash() {
        let divided: Vec<_> = divisions("a/b/c").collect();
        let expected = [("a/b/c", None), ("a/b", Some("c")), ("a", Some("b/c"))];
        assert_eq!(divided, expected);
        assert_eq!(steps(Some("b//3/")), ["b", "", "3", ""]);
        assert_eq!(steps(Some("")), [""]);
        assert!(steps(None).is_empty());
    }

    #[test]
    fn a_longer_name_takes_the_path() {
        let shadowed = |path, name| is_shadowed(path, "a", |start| start == name);
        assert!(shadowed("a/b", "a/b"));
        assert!(shadowed("a/b/c", "a/b"));
        assert!(!shadowed("a/b", "a"));
        assert!(!shadowed("a/b", "a/b/c"));
        assert!(!shadowed("a/bc", "a/b"));
    }

    #[test]
    fn objects_are_told_from_arrays() {
        use ndshm::element::{OpaqueType, ScalarType};
        let pickled = OpaqueType::new(PICKLED, 1, 1).unwrap().into();
        assert_eq!(Kind::of(&pickled), Kind::Pickled);
        let half = OpaqueType::new("<f2", 2, 2).unwrap().into();
        assert_eq!(Kind::of(&half), Kind::Array);
        assert_eq!(Kind::of(&ScalarType::U8.into()), Kind::Array);
    }
}
