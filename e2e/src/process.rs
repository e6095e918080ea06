//! A child process that cannot outlive the test process, however that ends.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use crate::wait::wait_for;

/// What a test sends to a process.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// Asks it to end.
    Terminate,
    /// As Ctrl-C does.
    Interrupt,
    /// Holds it: it neither runs nor knows.
    Stop,
    /// Lets it run again.
    Continue,
    /// Ends it between two instructions.
    Kill,
    /// Asks a daemon to read its configuration again.
    Reload,
}

/// A running program, its output in a file. It is killed when this is dropped, and by the kernel
/// when the test process dies without dropping it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to the file `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Self {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file handle can be cloned"))
            .stderr(output);
        let child = spawn_on_the_long_lived_thread(command)
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let number = match signal {
            Signal::Terminate => libc::SIGTERM,
            Signal::Interrupt => libc::SIGINT,
            Signal::Stop => libc::SIGSTOP,
            Signal::Continue => libc::SIGCONT,
            Signal::Kill => libc::SIGKILL,
            Signal::Reload => libc::SIGHUP,
        };
        let id = libc::pid_t::try_from(self.id()).expect("a process id fits its own type");
        // SAFETY: kill takes two numbers. The id is of a child that has not been waited for
        // elsewhere (`self` owns it), so it cannot have become another process.
        unsafe { libc::kill(id, number) };
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    pub async fn exits_within(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait_for(&what, limit, async || {
            self.exit_status().ok_or_else(|| format!("still running; its log:\n{}", self.log()))
        })
        .await
    }

    /// Ends it at once and waits for that.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

type Order = (Command, SyncSender<io::Result<Child>>);

/// The kernel sends the death signal when the *thread* that spawned the child ends, and a test's
/// thread ends with the test. So one thread that lives as long as the process spawns them all.
static SPAWNER: LazyLock<Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox): (_, Receiver<Order>) = channel();
    std::thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        })
        .expect("a thread can be started");
    orders
});

fn spawn_on_the_long_lived_thread(mut command: Command) -> io::Result<Child> {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl is a bare
    // system call and allocates nothing.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let (reply, answer) = sync_channel(1);
    SPAWNER.send((command, reply)).expect("the spawner lives as long as the process");
    answer.recv().expect("the spawner answers every order")
}
