//! What `top` knows: the queues of the last look, what changed since the one before, and a little history.

use crate::args::Sort;
use crate::output;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use usysv::queue::inspect::Outline;

/// How many looks are remembered.
const HISTORY: usize = 512;

/// A queue over time.
pub struct Row {
    /// Its identifier.
    pub id: u32,
    /// What it looked like last.
    pub outline: Outline,
    /// Owner's name.
    pub owner: String,
    /// Messages per second that came in, and that went out.
    pub rates: (f64, f64),
    /// Messages in the queue, at each look.
    pub depth: VecDeque<u64>,
    /// Messages per second that came in, at each look.
    pub sent: VecDeque<u64>,
    /// Messages per second that went out, at each look.
    pub taken: VecDeque<u64>,
}

fn remember(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}

impl Row {
    fn new(id: u32, outline: Outline, owner: String) -> Row {
        let depth = VecDeque::from([outline.status.qnum.into()]);
        let none = VecDeque::new();
        Row { id, outline, owner, rates: (0.0, 0.0), depth, sent: none.clone(), taken: none }
    }

    /// Takes a new look. A message handed to a waiting receiver was never in the queue, and counts as in and out;
    /// one that was handed over, taken back and sent once more counts twice.
    fn look(&mut self, outline: Outline, elapsed: Duration) {
        let (before, now) = (&self.outline, &outline);
        let taken = f64::from(now.taken.wrapping_sub(before.taken));
        let sent = (taken + f64::from(now.status.qnum) - f64::from(before.status.qnum)).max(0.0);
        let seconds = elapsed.as_secs_f64().max(0.001);
        self.rates = (sent / seconds, taken / seconds);
        remember(&mut self.depth, now.status.qnum.into());
        remember(&mut self.sent, self.rates.0.round() as u64);
        remember(&mut self.taken, self.rates.1.round() as u64);
        self.outline = outline;
    }

    /// How many wait in it.
    pub fn waiting(&self) -> u32 {
        self.outline.status.receivers + self.outline.status.senders
    }

    fn contains(&self, text: &str) -> bool {
        let status = &self.outline.status;
        let words = [
            output::key(&status.configuration),
            self.id.to_string(),
            self.owner.clone(),
            output::pid(status.lspid),
            output::pid(status.lrpid),
        ];
        words.iter().any(|word| word.to_lowercase().contains(&text.to_lowercase()))
    }
}

/// All queues over time, and the order in which they are shown.
pub struct Model {
    rows: BTreeMap<u32, Row>,
    /// What they are sorted by.
    pub sort: Sort,
    /// Whether in the other direction.
    pub reverse: bool,
    /// What a queue must contain to be shown; empty: nothing.
    pub filter: String,
}

/// Sums over all queues that are shown.
#[derive(Default, Debug, PartialEq)]
pub struct Totals {
    /// How many queues.
    pub queues: usize,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of text in them.
    pub bytes: u64,
    /// Messages per second in and out.
    pub rates: (f64, f64),
    /// Receivers that wait.
    pub receivers: u32,
    /// Senders that wait.
    pub senders: u32,
}

impl Model {
    /// Knows no queues yet.
    pub fn new(sort: Sort, filter: String) -> Model {
        Model { rows: BTreeMap::new(), sort, reverse: false, filter }
    }

    /// Takes a new look, so long after the last. `owner` names users.
    pub fn look(&mut self, queues: Vec<(u32, Outline)>, elapsed: Duration, owner: impl Fn(u32) -> String) {
        let mut rows = BTreeMap::new();
        for (id, outline) in queues {
            let row = match self.rows.remove(&id) {
                Some(mut row) => {
                    row.owner = owner(outline.status.configuration.uid);
                    row.look(outline, elapsed);
                    row
                }
                None => {
                    let owner = owner(outline.status.configuration.uid);
                    Row::new(id, outline, owner)
                }
            };
            rows.insert(id, row);
        }
        self.rows = rows;
    }

    /// A queue.
    pub fn row(&self, id: u32) -> Option<&Row> {
        self.rows.get(&id)
    }

    /// The queues to be shown, in order: most first, but by identifier and key from the lowest.
    pub fn shown(&self) -> Vec<&Row> {
        let mut shown: Vec<&Row> = self.rows.values().filter(|row| row.contains(&self.filter)).collect();
        let compare = |a: &Row, b: &Row| {
            let most = |f: fn(&Row) -> f64| f(b).total_cmp(&f(a));
            let key = |row: &Row| row.outline.status.configuration.key.cast_unsigned();
            match self.sort {
                Sort::Rate => most(|row| row.rates.0 + row.rates.1),
                Sort::Depth => most(|row| row.outline.status.qnum.into()),
                Sort::Full => most(|row| output::fullness(&row.outline.status)),
                Sort::Waiting => most(|row| row.waiting().into()),
                Sort::Id => a.id.cmp(&b.id),
                Sort::Key => key(a).cmp(&key(b)),
            }
        };
        shown.sort_by(|a, b| {
            let order = compare(a, b);
            if self.reverse { order.reverse() } else { order }
        });
        shown
    }

    /// Sums over what is shown.
    pub fn totals(&self) -> Totals {
        self.shown().iter().fold(Totals::default(), |sum, row| Totals {
            queues: sum.queues + 1,
            messages: sum.messages + u64::from(row.outline.status.qnum),
            bytes: sum.bytes + row.outline.status.cbytes,
            rates: (sum.rates.0 + row.rates.0, sum.rates.1 + row.rates.1),
            receivers: sum.receivers + row.outline.status.receivers,
            senders: sum.senders + row.outline.status.senders,
        })
    }
}

/// A rate, short.
pub fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        r if r < 10.0 => format!("{r:.1}"),
        r if r < 10_000.0 => format!("{r:.0}"),
        r if r < 10_000_000.0 => format!("{:.0}k", r / 1000.0),
        r => format!("{:.0}M", r / 1e6),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use usysv::queue::{Configuration, Status};

    /// A queue of some depth from which some messages were taken.
    pub fn outline(key: i32, qnum: u32, taken: u32) -> Outline {
        let configuration = Configuration { key, mode: 0o600, qbytes: 100, ..Configuration::default() };
        let status = Status { configuration, qnum, cbytes: qnum.into(), ..Status::default() };
        Outline {
            status,
            taken,
            handed: 0,
            granules: 10,
            reserved: 32,
            participants: 3,
            active: 0,
            dead: 0,
            waiters: Vec::new(),
        }
    }

    pub fn two_looks() -> Model {
        let mut model = Model::new(Sort::Rate, String::new());
        let owner = |uid: u32| format!("user{uid}");
        model.look(vec![(0, outline(7, 10, u32::MAX)), (1, outline(3, 50, 0))], Duration::ZERO, owner);
        model.look(vec![(0, outline(7, 20, 29)), (1, outline(3, 90, 0))], Duration::from_secs(2), owner);
        model
    }

    #[test]
    fn rates_are_what_changed() {
        let mut model = two_looks();
        let row = model.row(0).unwrap();
        assert_eq!(row.rates, (20.0, 15.0), "30 taken, across the wrap, and 10 more than before");
        assert_eq!(row.depth, [10, 20]);
        assert_eq!(model.row(1).unwrap().rates, (20.0, 0.0));
        assert_eq!(model.totals().rates, (40.0, 15.0));
        model.look(vec![(1, outline(3, 0, 90))], Duration::from_secs(1), |_| String::new());
        assert!(model.row(0).is_none(), "it is gone");
        assert_eq!(model.row(1).unwrap().rates, (0.0, 90.0));
    }

    #[test]
    fn queues_are_sorted_and_filtered() {
        let mut model = two_looks();
        let ids = |model: &Model| model.shown().iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(&model), [0, 1]);
        model.sort = Sort::Depth;
        assert_eq!(ids(&model), [1, 0]);
        model.reverse = true;
        assert_eq!(ids(&model), [0, 1]);
        (model.sort, model.reverse) = (Sort::Key, false);
        assert_eq!(ids(&model), [1, 0]);
        model.filter = "0x00000007".to_owned();
        assert_eq!(ids(&model), [0]);
        assert_eq!(model.totals().queues, 1);
    }

    #[test]
    fn rates_are_short() {
        assert_eq!(
            [0.0, 1.25, 42.4, 9999.0, 1.5e6, 2e7].map(rate),
            ["0", "1.2", "42", "9999", "1500k", "20M"]
        );
    }
}
