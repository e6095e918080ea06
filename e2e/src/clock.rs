//! A clock that is wrong, for one process: a library that is loaded before libc and answers in its
//! place when the process asks for the time of day.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::judges::run;
use crate::workspace;

/// CLOCK_MONOTONIC, by which pauses are measured, is left alone, as it is where a real clock is
/// wrong. By how many seconds the clock is off stands in a file that the test can write while the
/// process runs.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static const volatile long *offset(void) {
    static const volatile long *found;
    if (!found) {
        const char *name = getenv("CLOCK_OFFSET_FILE");
        int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        if (page == MAP_FAILED) abort();
        found = page;
    }
    return found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec += *offset();
    return result;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
"#;

/// A process's clock, which the test sets.
pub struct Clock(PathBuf);

impl Clock {
    /// Has the clock of `command` be off by this many seconds: ahead, or behind.
    pub fn of(command: &mut Command, seconds: i64) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let clock = Self(library().with_file_name(format!("offset-{number}")));
        std::fs::write(&clock.0, seconds.to_ne_bytes()).expect("the clock's folder is writable");
        command.env("LD_PRELOAD", library()).env("CLOCK_OFFSET_FILE", &clock.0);
        clock
    }

    /// Has it jump. The process sees the whole number or none of it: it is written in one piece.
    pub fn set(&self, seconds: i64) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(&self.0);
        let written = file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0));
        written.expect("the clock's file is writable");
    }
}

fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = workspace::scratch("clock").join("clock.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-x", "c", "-", "-ldl", "-o"]).arg(&library);
        run(&mut compiler, SOURCE);
        library
    })
}
