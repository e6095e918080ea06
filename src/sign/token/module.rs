//! A PKCS#11 module: a library of the token's maker, loaded into this process, and the sessions
//! with its tokens.
//!
//! What is started and ended in a module (C_Initialize, C_Finalize, a login) counts for the whole
//! process, so there is one [`Module`] a path, and it outlives whoever asked for it.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Limit, Slot, TokenInfo};

use super::error::{Fault, TokenError};
use super::pin::Pin;

/// Sessions with one token. An HSM in the network does several things at once; a token that does
/// one after the other makes the rest wait, which costs nothing.
const SESSIONS: usize = 8;

/// How long somebody waits for a session, or for the module. Longer than a token takes for
/// anything but to make an RSA key.
const PATIENCE: Duration = Duration::from_secs(30);

/// A module is not started again more often: it takes the sessions of all its tokens away.
const RESTART_PAUSE: Duration = Duration::from_secs(2);

/// The time between two starts of a module; no two are the same. Handles of another mean nothing.
pub(super) type Epoch = u64;

static EPOCHS: AtomicU64 = AtomicU64::new(1);

/// A module that is loaded.
pub(super) struct Module {
    path: PathBuf,
    library: Pkcs11,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads that are in the module now.
    inside: usize,
    /// One of them opens a session. Two that log in at once with a wrong PIN would waste a try.
    is_opening: bool,
    /// Nobody may go in: it is being started again.
    is_restarting: bool,
    is_started: bool,
    epoch: Epoch,
    restarted: Option<Instant>,
    tokens: HashMap<String, Seat>,
}

/// What is known of one token.
#[derive(Default)]
struct Seat {
    idle: Vec<Session>,
    /// How many sessions there are, idle or not.
    open: usize,
    /// How many there may be, where the token says so.
    limit: Option<usize>,
    /// The PIN of the login that there is. The token does not look at another one meanwhile.
    accepted: Option<Pin>,
    /// The PIN that the token took last.
    known: Option<Pin>,
    /// PINs that it did not take.
    refused: Vec<Pin>,
}

/// The modules of this process. One is never unloaded: some crash at it.
static LOADED: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

impl Module {
    /// The module of this path.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, TokenError> {
        let mut loaded = lock(&LOADED);
        if let Some(module) = loaded.get(path) {
            return Ok(module.clone());
        }
        let library = Pkcs11::new(path).map_err(|error| {
            let why = match &error {
                Pkcs11Error::LibraryLoading(why) => why.to_string(),
                other => other.to_string(),
            };
            TokenError::Module { module: path.display().to_string(), why }
        })?;
        let module = Arc::new(Module {
            path: path.to_owned(),
            library,
            state: Mutex::new(State {
                epoch: EPOCHS.fetch_add(1, Ordering::Relaxed),
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        loaded.insert(path.to_owned(), module.clone());
        Ok(module)
    }

    /// The module in which a token of this label was opened, the one of this path before others: a
    /// module may have moved since a key was made.
    pub(super) fn that_opened(label: &str, path: &Path) -> Option<Arc<Self>> {
        let loaded: Vec<_> = lock(&LOADED).values().cloned().collect();
        let mut knowing: Vec<_> = loaded.into_iter().filter(|module| module.knows(label)).collect();
        match knowing.iter().position(|module| module.path == path) {
            Some(at) => Some(knowing.swap_remove(at)),
            None if knowing.len() == 1 => knowing.pop(),
            None => None,
        }
    }

    fn knows(&self, label: &str) -> bool {
        self.lock().tokens.get(label).is_some_and(|seat| seat.known.is_some())
    }

    /// The PIN that this token took last.
    pub(super) fn known_pin(&self, label: &str) -> Option<Pin> {
        self.lock().tokens.get(label).and_then(|seat| seat.known.clone())
    }

    /// Does something with a session that is logged in. Where the session turns out to be worth
    /// nothing, the module is started again, and it is done once more.
    pub(super) fn with<T>(
        &self,
        label: &str,
        pin: &Pin,
        work: impl Fn(&Session, Epoch) -> Result<T, Fault>,
    ) -> Result<T, TokenError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (epoch, result) = self.once(label, pin, &work)?;
            match result {
                Ok(done) => return Ok(done),
                Err(fault) if attempts == 1 && fault.is_of_session() => {
                    if !self.restart(label, epoch)? {
                        return Err(fault.of(label));
                    }
                }
                Err(fault) => return Err(fault.of(label)),
            }
        }
    }

    fn once<T>(
        &self,
        label: &str,
        pin: &Pin,
        work: impl Fn(&Session, Epoch) -> Result<T, Fault>,
    ) -> Result<(Epoch, Result<T, Fault>), TokenError> {
        let visit = self.enter(label, pin)?;
        let session = match visit.session() {
            Ok(session) => session,
            Err(fault) => return Ok((visit.epoch, Err(fault))),
        };
        let result = work(&session, visit.epoch);
        let is_sound = result.as_ref().err().is_none_or(|fault| !fault.is_of_session());
        visit.give_back(session, is_sound);
        Ok((visit.epoch, result))
    }

    /// Goes in as soon as there is a session, or room for one.
    fn enter<'a>(&'a self, label: &'a str, pin: &'a Pin) -> Result<Visit<'a>, TokenError> {
        let mut state = self.lock();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seat = state.tokens.entry(label.to_owned()).or_default();
            if seat.refused.contains(pin) {
                return Err(TokenError::PinIncorrect { label: label.to_owned() });
            }
            let has_idle = seat.accepted.as_ref() == Some(pin) && !seat.idle.is_empty();
            let has_room = seat.open < seat.limit.unwrap_or(SESSIONS) && !state.is_opening;
            if !state.is_restarting && (has_idle || has_room) {
                break;
            }
            state = self.wait(state, label, deadline)?;
        }
        let epoch = state.epoch;
        let seat = state.tokens.entry(label.to_owned()).or_default();
        let idle = match seat.accepted.as_ref() == Some(pin) {
            true => seat.idle.pop(),
            false => None,
        };
        let opens = idle.is_none();
        seat.open += usize::from(opens);
        state.is_opening |= opens;
        state.inside += 1;
        Ok(Visit {
            module: self,
            label,
            pin,
            epoch,
            opens: Cell::new(opens),
            idle: Cell::new(idle),
        })
    }

    /// Ends and starts the module, unless somebody did since `epoch`. False where it was done a
    /// moment ago and did not help.
    fn restart(&self, label: &str, epoch: Epoch) -> Result<bool, TokenError> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        while state.is_restarting {
            state = self.wait(state, label, deadline)?;
        }
        if state.epoch != epoch {
            return Ok(true);
        }
        if state.restarted.is_some_and(|before| before.elapsed() < RESTART_PAUSE) {
            return Ok(false);
        }
        state.is_restarting = true;
        while state.inside > 0 {
            state = match self.wait(state, label, deadline) {
                Ok(state) => state,
                Err(error) => {
                    self.lock().is_restarting = false;
                    self.changed.notify_all();
                    return Err(error);
                }
            };
        }
        let sessions: Vec<Session> =
            state.tokens.values_mut().flat_map(|seat| seat.idle.drain(..)).collect();
        let was_started = state.is_started;
        drop(state);
        // Nobody is inside, and nobody comes in: what follows may take its time.
        drop(sessions);
        if was_started {
            // That it fails is no news: something is wrong already.
            let _ = self.library.clone().finalize();
        }
        let mut state = self.lock();
        for seat in state.tokens.values_mut() {
            seat.open = 0;
            seat.accepted = None;
        }
        state.is_started = false;
        state.is_restarting = false;
        state.epoch = EPOCHS.fetch_add(1, Ordering::Relaxed);
        state.restarted = Some(Instant::now());
        self.changed.notify_all();
        tracing::info!(module = %self.path.display(), "the PKCS#11 module is started again");
        Ok(true)
    }

    fn start(&self) -> Result<(), Fault> {
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        match self.library.initialize(arguments) {
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The slot in which the token of this label is.
    fn slot(&self, label: &str) -> Result<Slot, Fault> {
        let mut seen = Vec::new();
        for slot in self.library.get_slots_with_token()? {
            // A token that cannot be asked is none of ours, or will be missed by its label.
            if let Ok(info) = self.library.get_token_info(slot)
                && info.token_initialized()
            {
                seen.push((info.label().trim_end().to_owned(), slot));
            }
        }
        let ours: Vec<Slot> =
            seen.iter().filter(|(name, _)| name == label).map(|(_, slot)| *slot).collect();
        let label = label.to_owned();
        match ours.as_slice() {
            [slot] => Ok(*slot),
            [] => {
                let module = self.path.display().to_string();
                let seen = match seen.as_slice() {
                    [] => "none".to_owned(),
                    seen => seen
                        .iter()
                        .map(|(name, _)| format!("{name:?}"))
                        .collect::<Vec<_>>()
                        .join(", "),
                };
                Err(TokenError::NoToken { label, module, seen }.into())
            }
            several => Err(TokenError::TwoTokens { label, count: several.len() }.into()),
        }
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        label: &str,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, State>, TokenError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TokenError::Busy { label: label.to_owned(), seconds: PATIENCE.as_secs() });
        }
        let waited = self.changed.wait_timeout(state, left);
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A thread's stay in a module.
struct Visit<'a> {
    module: &'a Module,
    label: &'a str,
    pin: &'a Pin,
    epoch: Epoch,
    /// Whether it is about to open a session of its own.
    opens: Cell<bool>,
    idle: Cell<Option<Session>>,
}

impl Visit<'_> {
    /// The session that was idle, or a new one.
    fn session(&self) -> Result<Session, Fault> {
        if let Some(session) = self.idle.take() {
            return Ok(session);
        }
        let opened = self.open();
        let mut state = self.module.lock();
        let seat = state.tokens.entry(self.label.to_owned()).or_default();
        match &opened {
            Ok(_) => {
                seat.accepted = Some(self.pin.clone());
                seat.known = Some(self.pin.clone());
            }
            Err(fault) => {
                seat.open = seat.open.saturating_sub(1);
                if is_refusal(fault) {
                    tracing::warn!(token = self.label, "the PIN is refused, and not tried again");
                    seat.refused.push(self.pin.clone());
                }
            }
        }
        state.is_opening = false;
        self.opens.set(false);
        drop(state);
        self.module.changed.notify_all();
        opened
    }

    fn open(&self) -> Result<Session, Fault> {
        let module = self.module;
        if !module.lock().is_started {
            module.start()?;
            module.lock().is_started = true;
        }
        let slot = module.slot(self.label)?;
        let info = module.library.get_token_info(slot)?;
        let accepted = {
            let mut state = module.lock();
            let seat = state.tokens.entry(self.label.to_owned()).or_default();
            seat.limit = limit_of(&info);
            seat.accepted.clone()
        };
        let session = match module.library.open_rw_session(slot) {
            // One that lets nobody write still signs.
            Err(Pkcs11Error::Pkcs11(RvError::TokenWriteProtected, _)) => {
                module.library.open_ro_session(slot)?
            }
            other => other?,
        };
        match (is_logged_in(&session)?, accepted) {
            (true, Some(pin)) if pin == *self.pin => return Ok(session),
            // With this PIN alone it says whether the PIN is right; starting the module again is
            // the way to be logged out without anybody noticing in the middle of something.
            (true, Some(_)) => {
                let code = RvError::UserAnotherAlreadyLoggedIn;
                return Err(Pkcs11Error::Pkcs11(code, Function::Login).into());
            }
            (true, None) => session.logout()?,
            (false, _) => {}
        }
        let label = self.label.to_owned();
        if info.user_pin_locked() {
            return Err(TokenError::PinLocked { label }.into());
        }
        if info.user_pin_final_try() {
            return Err(TokenError::LastTry { label }.into());
        }
        session.login(UserType::User, Some(&self.pin.expose()))?;
        Ok(session)
    }

    fn give_back(&self, session: Session, is_sound: bool) {
        let mut state = self.module.lock();
        let seat = state.tokens.entry(self.label.to_owned()).or_default();
        if is_sound {
            seat.idle.push(session);
        } else {
            seat.open = seat.open.saturating_sub(1);
            drop(state);
            // A TPM without a resource manager keeps a user's keys in its few places until he logs
            // out, whatever becomes of the session. Both speak with the token: not while others wait.
            let _ = session.logout();
            drop(session);
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut state = self.module.lock();
        state.inside -= 1;
        if self.opens.get() {
            state.is_opening = false;
        }
        self.module.changed.notify_all();
    }
}

/// True if and only if the session shows private objects. Without a login a token does not refuse to
/// look for them: it finds none.
pub(super) fn is_logged_in(session: &Session) -> Result<bool, Pkcs11Error> {
    let state = session.get_session_info()?.session_state();
    Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
}

/// How many sessions a token allows, where that is less than what we would open.
fn limit_of(info: &TokenInfo) -> Option<usize> {
    [info.max_session_count(), info.max_rw_session_count()]
        .into_iter()
        .filter_map(|limit| match limit {
            Limit::Max(count) => usize::try_from(count).ok(),
            _ => None,
        })
        .filter(|count| (1..SESSIONS).contains(count))
        .min()
}

/// True if and only if the token said that the PIN is wrong.
fn is_refusal(fault: &Fault) -> bool {
    use RvError::{PinIncorrect, PinInvalid, PinLenRange};
    matches!(fault, Fault::Pkcs11(Pkcs11Error::Pkcs11(PinIncorrect | PinInvalid | PinLenRange, _)))
}

/// Nobody panics while holding one of these, but if it were so, what is in it is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
