//! Saving arrays through an observer.

use std::fs::File;
use std::path::Path;

use super::{NpyError, header, not_in_numpy, transfer};
use crate::handle::AnyHandle;
use crate::inspect::Observer;

/// Bytes that are copied and written at once: few enough to stay in a cache in between.
const PIECE: usize = 512 << 10;

impl Observer {
    /// Saves an array as a `.npy` file. The file replaces `path` once it is complete.
    ///
    /// Like [`copy_bytes`](Observer::copy_bytes) it neither detects nor excludes a process that
    /// writes the array meanwhile. In that case the elements are from different moments.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// # let path = std::env::temp_dir().join(format!("ndshm-observed-{}.npy", std::process::id()));
    /// let x = table.from_elem((2, 3), 1.5)?;
    /// observer.save_npy(x, &path)?;                        // takes no lease
    /// assert_eq!(table.info(table.load_npy(&path)?)?.shape, [2, 3]);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NpyError`]; then `path` is unchanged.
    pub fn save_npy(
        &self,
        handle: impl Into<AnyHandle>,
        path: impl AsRef<Path>,
    ) -> Result<(), NpyError> {
        let info = self.info(handle)?;
        let header = header::written(&info.dtype, &info.shape, info.order)
            .map_err(not_in_numpy(info.handle))?;
        transfer::save(path.as_ref(), |file: &mut File, name: &str| {
            transfer::write(file, name, &header)?;
            let most = info.bytes.min(PIECE as u64) as usize;
            let mut piece = vec![0; most];
            let mut at = 0;
            while at < info.bytes {
                let now = piece.len().min((info.bytes - at) as usize);
                self.copy_bytes(info.handle, at, &mut piece[..now])?;
                transfer::write(file, name, &piece[..now])?;
                at += now as u64;
            }
            Ok(())
        })
    }
}
