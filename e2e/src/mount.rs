//! A volume as the kubelet makes it: files are links through `..data`, which is swapped, and what
//! it pointed to before is removed.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

/// Files by name, as they are in one version of a volume.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files of a Secret.
pub fn files_of(secret: &Secret) -> Files {
    secret.data.iter().flatten().map(|(name, value)| (name.clone(), value.0.clone())).collect()
}

/// The files of a ConfigMap.
pub fn files_of_map(map: &ConfigMap) -> Files {
    map.data.iter().flatten().map(|(name, value)| (name.clone(), value.clone().into())).collect()
}

/// A folder that files are brought into, version by version.
pub struct Mount {
    /// Where a program finds the files.
    pub folder: PathBuf,
    shown: Files,
    count: u32,
}

impl Mount {
    /// One with a first version in it.
    pub fn of(folder: PathBuf, files: Files) -> Self {
        let mut mount = Self { folder, shown: Files::new(), count: 0 };
        mount.update(files);
        for name in mount.shown.keys() {
            symlink(Path::new("..data").join(name), mount.folder.join(name))
                .expect("a link can be made");
        }
        mount
    }

    /// Brings another version, all its files at one moment. The last one is removed right after,
    /// so a program that has just found its way into it finds nothing there.
    pub fn update(&mut self, files: Files) {
        if files == self.shown {
            return;
        }
        let version = |count| format!("..version-{count}");
        self.count += 1;
        write(&self.folder.join(version(self.count)), &files);
        let link = self.folder.join("..data_tmp");
        symlink(version(self.count), &link).expect("a link can be made");
        std::fs::rename(&link, self.folder.join("..data")).expect("a link can be swapped");
        if self.count > 1 {
            std::fs::remove_dir_all(self.folder.join(version(self.count - 1)))
                .expect("the old version is ours");
        }
        self.shown = files;
    }
}

/// Writes files into a folder.
pub fn write(folder: &Path, files: &Files) {
    std::fs::create_dir_all(folder).expect("a folder can be made");
    for (name, value) in files {
        std::fs::write(folder.join(name), value).expect("a file can be written");
    }
}
