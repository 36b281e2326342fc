//! The contents of a segment as a JSON document.

use ndshm::inspect::{ArrayInfo, BundleInfo, ClassInfo, NameInfo, SeatInfo, Verification};
use serde_json::{Value, json};

use super::text::kept_bytes;
use super::{Report, command, order};
use crate::path::Kind;
use crate::survey;

impl Report {
    /// Returns the document.
    pub(super) fn document(&self) -> Value {
        let (alive, names) = (self.alive(), self.names_by_handle());
        let bundles = self.bundles_by_part();
        let array = |array: &ArrayInfo| {
            json!({
                "handle": array.handle.to_string(),
                "names": names.get(&array.handle.to_bits()).cloned().unwrap_or_default(),
                "kind": Kind::of(&array.dtype).name(),
                "bundle": bundles.get(&array.handle.to_bits()).map(|it| it.handle.to_string()),
                "dtype": array.dtype.to_string(),
                "shape": array.shape,
                "order": order(array.order),
                "bytes": array.bytes,
                "owner": array.owner,
                "owner_alive": array.owner.map(|pid| alive.contains(&pid)),
                "writer": array.writer,
                "readers": array.readers,
                "pins": array.pins,
                "poisoned": array.poisoned,
            })
        };
        let bundle = |bundle: &BundleInfo| {
            let part =
                |part: &NameInfo| json!({"name": part.name, "handle": part.handle.to_string()});
            json!({
                "handle": bundle.handle.to_string(),
                "names": names.get(&bundle.handle.to_bits()).cloned().unwrap_or_default(),
                "owner": bundle.owner,
                "owner_alive": bundle.owner.map(|pid| alive.contains(&pid)),
                "frozen": bundle.frozen,
                "parts": bundle.parts.iter().map(part).collect::<Value>(),
            })
        };
        let seat = |seat: &SeatInfo| {
            json!({
                "seat": seat.seat,
                "pid": seat.pid,
                "alive": seat.alive,
                "command": command(seat),
            })
        };
        let class = |class: &ClassInfo| {
            json!({
                "extent": class.extent,
                "slots": class.slots,
                "live": class.live,
                "free": class.free,
                "kept": class.kept,
                "kept_bytes": kept_bytes(class),
                "asked": class.asked,
                "taken": class.taken,
            })
        };
        json!({
            "segment": self.place.to_string(),
            "uid": self.uid,
            "user": survey::user(self.uid),
            "size": self.size,
            "resident": self.resident,
            "capacity": self.observer.capacity(),
            "persistent": self.observer.is_persistent(),
            "pinned": self.observer.is_pinned(),
            "arrays": self.arrays.iter().map(array).collect::<Value>(),
            "bundles": self.bundles.iter().map(bundle).collect::<Value>(),
            "seats": self.seats.iter().map(seat).collect::<Value>(),
            "classes": self.classes.iter().map(class).collect::<Value>(),
            "names": self.names.as_ref().ok().map(|names| {
                let name = |info: &NameInfo| {
                    json!({
                        "name": info.name,
                        "handle": info.handle.to_string(),
                        "pid": info.pid,
                    })
                };
                names.iter().map(name).collect::<Value>()
            }),
            "verify": verification(&self.verification),
        })
    }
}

/// Returns the findings of `verify` as JSON.
fn verification(found: &Verification) -> Value {
    let damage = found.damage.iter().map(|damage| {
        json!({
            "offset": damage.offset,
            "what": damage.what,
            "found": format!("{:#018x}", damage.found),
        })
    });
    json!({
        "clean": found.is_clean(),
        "seats": found.seats,
        "spans": found.spans,
        "slots": found.slots,
        "free": found.free,
        "reserved": found.reserved,
        "live": found.live,
        "retired": found.retired,
        "exhausted": found.exhausted,
        "poisoned": found.poisoned,
        "writers": found.writers,
        "readers": found.readers,
        "pins": found.pins,
        "in_transit": found.in_transit,
        "unhinted": found.unhinted,
        "damage": damage.collect::<Value>(),
    })
}
