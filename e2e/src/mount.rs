//! A Secret volume as the kubelet makes it: files are links through `..data`, which is swapped.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::Secret;

/// A folder that a Secret is brought into, version by version.
pub struct Mount {
    /// Where a program finds the files.
    pub folder: PathBuf,
    count: AtomicU32,
}

impl Mount {
    /// One with a first version in it.
    pub fn of(folder: PathBuf, secret: &Secret) -> Self {
        let mount = Self { folder, count: AtomicU32::default() };
        mount.update(secret);
        for name in secret.data.iter().flatten().map(|(name, _)| name) {
            let link = mount.folder.join(name);
            std::os::unix::fs::symlink(Path::new("..data").join(name), link)
                .expect("a link can be made");
        }
        mount
    }

    /// Brings another version, all its files at one moment.
    pub fn update(&self, secret: &Secret) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let version = format!("..version-{number}");
        write(&self.folder.join(&version), secret);
        let link = self.folder.join("..data_tmp");
        std::os::unix::fs::symlink(&version, &link).expect("a link can be made");
        std::fs::rename(&link, self.folder.join("..data")).expect("a link can be swapped");
    }
}

/// Writes a Secret's files into a folder.
pub fn write(folder: &Path, secret: &Secret) {
    std::fs::create_dir_all(folder).expect("a folder can be made");
    for (name, value) in secret.data.iter().flatten() {
        std::fs::write(folder.join(name), &value.0).expect("a file can be written");
    }
}
