//! `usysv top`: the queues, live.
//!
//! | file     | what it is                                        |
//! |----------|---------------------------------------------------|
//! | model.rs | the queues over time: rates, order, filter        |
//! | view.rs  | how it looks; draws what the rest knows           |
//! | here     | looking at the queues, and the keyboard           |
//!
//! It looks at control files only, as everybody may; the types of a queue's messages are shown to who may read it.

mod model;
mod view;

use crate::args::{Sort, Top};
use crate::output::{self, Cell, Colour, Paper, Table};
use crate::processes::{self, Names};
use crate::{Code, Failure, Outcome};
use clap::ValueEnum;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use model::{Model, rate};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};
use usysv::queue::inspect::TypeCount;
use usysv::semantics::inspect;

/// What is on the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Screen {
    List,
    Queue(u32),
}

/// The state of the view.
struct App {
    model: Model,
    screen: Screen,
    selected: Option<u32>,
    /// Types of the messages in the queue that is looked into, if they may be seen.
    types: Option<Vec<TypeCount>>,
    delay: Duration,
    paused: bool,
    help: bool,
    typing: bool,
    error: Option<String>,
    /// When it was looked last.
    looked: Option<Instant>,
}

impl Default for App {
    fn default() -> App {
        App {
            model: Model::new(Sort::Rate, String::new()),
            screen: Screen::List,
            selected: None,
            types: None,
            delay: Duration::from_secs(1),
            paused: false,
            help: false,
            typing: false,
            error: None,
            looked: None,
        }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    On,
    End,
}

impl App {
    fn look(&mut self, names: &Names) {
        let now = Instant::now();
        let elapsed = self.looked.map_or(Duration::ZERO, |before| now - before);
        match inspect::list() {
            Ok(queues) => {
                processes::forget();
                self.model.look(queues, elapsed, |uid| names.user(uid));
                self.error = None;
            }
            Err(errno) => self.error = Some(io::Error::from_raw_os_error(errno.0).to_string()),
        }
        self.looked = Some(now);
        self.look_into();
    }

    fn look_into(&mut self) {
        if let Screen::Queue(id) = self.screen {
            // A queue that changes too fast keeps what was seen last.
            match inspect::types(id.cast_signed()) {
                Ok(Some(types)) => self.types = Some(types),
                Ok(None) => {}
                Err(_) => self.types = None,
            }
        }
    }

    /// Chooses the queue that stands some lines below, or above.
    fn choose(&mut self, lines: isize) {
        let shown: Vec<u32> = self.model.shown().iter().map(|row| row.id).collect();
        let there = self.selected.and_then(|id| shown.iter().position(|&other| other == id));
        let next = match there {
            Some(there) => there.saturating_add_signed(lines).min(shown.len().saturating_sub(1)),
            None => 0,
        };
        self.selected = shown.get(next).copied();
    }

    fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Next::End;
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.model.filter.clear();
                }
                KeyCode::Backspace => {
                    self.model.filter.pop();
                }
                KeyCode::Char(c) => self.model.filter.push(c),
                _ => {}
            }
            return Next::On;
        }
        if self.help {
            self.help = false;
            return if key.code == KeyCode::Char('q') { Next::End } else { Next::On };
        }
        match key.code {
            KeyCode::Char('q') => return Next::End,
            KeyCode::Esc if self.screen != Screen::List => self.screen = Screen::List,
            KeyCode::Esc => self.model.filter.clear(),
            KeyCode::Char('h' | '?') => self.help = true,
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::PageUp => self.choose(-10),
            KeyCode::PageDown => self.choose(10),
            KeyCode::Enter if self.screen == Screen::List => {
                if self.selected.is_none() {
                    self.choose(0);
                }
                if let Some(id) = self.selected {
                    self.screen = Screen::Queue(id);
                    self.types = None;
                    self.look_into();
                }
            }
            KeyCode::Backspace => self.screen = Screen::List,
            KeyCode::Char('s') => {
                let all = Sort::value_variants();
                let next = all.iter().position(|&sort| sort == self.model.sort).map_or(0, |at| at + 1);
                self.model.sort = all.get(next).or(all.first()).copied().unwrap_or(Sort::Rate);
            }
            KeyCode::Char('r') => self.model.reverse = !self.model.reverse,
            KeyCode::Char('/') => {
                self.typing = true;
                self.model.filter.clear();
            }
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('+') => self.delay = (self.delay / 2).max(Duration::from_millis(100)),
            KeyCode::Char('-') => self.delay = (self.delay * 2).min(Duration::from_secs(60)),
            _ => {}
        }
        Next::On
    }

    /// Draws, looks and listens until the user has seen enough.
    fn run(&mut self, terminal: &mut ratatui::DefaultTerminal, names: &Names) -> io::Result<()> {
        loop {
            terminal.draw(|frame| view::draw(frame, self))?;
            let since = self.looked.map_or(self.delay, |looked| looked.elapsed());
            let rest = if self.paused { Duration::from_secs(3600) } else { self.delay.saturating_sub(since) };
            if event::poll(rest)? {
                if let Event::Key(key) = event::read()?
                    && key.kind != KeyEventKind::Release
                    && self.key(key) == Next::End
                {
                    return Ok(());
                }
            } else if !self.paused {
                self.look(names);
            }
        }
    }
}

/// Watches the queues.
pub fn top(arguments: &Top) -> Outcome {
    let names = Names::new();
    let mut app = App {
        model: Model::new(arguments.sort, arguments.filter.clone().unwrap_or_default()),
        delay: arguments.delay.max(Duration::from_millis(100)),
        ..App::default()
    };
    app.look(&names);
    if let Some(error) = app.error {
        return Err(Failure::new(Code::Wrong, format!("{}: {error}", usysv::directory().display())));
    }
    if arguments.batch {
        return batch(arguments, app, &names);
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::new(Code::Wrong, "not at a terminal: --batch prints plain text"));
    }
    let mut terminal = ratatui::try_init()?;
    let ended = app.run(&mut terminal, &names);
    ratatui::try_restore()?;
    ended?;
    Ok(Code::Well)
}

/// A table after each delay.
fn batch(arguments: &Top, mut app: App, names: &Names) -> Outcome {
    let mut looks = 0;
    while arguments.iterations.is_none_or(|most| looks < most) {
        std::thread::sleep(app.delay);
        app.look(names);
        if let Some(error) = app.error {
            return Err(Failure::new(Code::Wrong, error));
        }
        let mut table =
            Table { right: vec![false, true, false, true, true, true, true, true, true], rows: Vec::new() };
        let heading = ["KEY", "ID", "OWNER", "MSGS", "BYTES", "IN/S", "OUT/S", "RECV", "SEND"];
        table.rows.push(heading.map(|name| Cell::new(name, Colour::Bold)).to_vec());
        for row in app.model.shown() {
            let status = &row.outline.status;
            let numbers = [
                status.qnum.to_string(),
                status.cbytes.to_string(),
                rate(row.rates.0),
                rate(row.rates.1),
                status.receivers.to_string(),
                status.senders.to_string(),
            ];
            let who = [output::key(&status.configuration), row.id.to_string(), row.owner.clone()];
            table.rows.push(who.into_iter().chain(numbers).map(Cell::from).collect());
        }
        let mut paper = Paper::new();
        if looks > 0 {
            paper.line("")?;
        }
        paper.table(&table)?;
        paper.finish()?;
        looks += 1;
    }
    Ok(Code::Well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::tests::two_looks;

    fn press(app: &mut App, keys: &[KeyCode]) -> Next {
        keys.iter().map(|&code| app.key(KeyEvent::new(code, KeyModifiers::NONE))).last().unwrap_or(Next::On)
    }

    #[test]
    fn keys_do_what_help_says() {
        use KeyCode::{Backspace, Char, Down, Enter, Esc, Up};
        let mut app = App { model: two_looks(), ..App::default() };
        press(&mut app, &[Down, Down, Down]);
        assert_eq!(app.selected, Some(1), "not beyond the last");
        press(&mut app, &[Up, Enter]);
        assert_eq!((app.selected, app.screen), (Some(0), Screen::Queue(0)));
        press(&mut app, &[Esc]);
        assert_eq!(app.screen, Screen::List);
        press(&mut app, &[Char('s'), Char('r')]);
        assert!(app.model.sort == Sort::Depth && app.model.reverse);
        press(&mut app, &[Char('/'), Char('q'), Char('x'), Backspace, Enter]);
        assert_eq!((app.model.filter.as_str(), app.typing), ("q", false));
        press(&mut app, &[Esc, Char('h')]);
        assert!(app.model.filter.is_empty() && app.help);
        assert_eq!(press(&mut app, &[Esc, Char('+'), Char(' ')]), Next::On);
        assert!(app.paused && !app.help && app.delay == Duration::from_millis(500));
        assert_eq!(press(&mut app, &[Char('q')]), Next::End);
        let interrupt = KeyEvent::new(Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.key(interrupt), Next::End);
    }
}
