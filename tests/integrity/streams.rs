//! Whole streams.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{App, By, Digest, NAME, PATIENCE, Path, WAYS, amount, endpoint, noise, open};

const CONNECTIONS: u64 = 8;
/// Longest piece that is written or read at once.
const LONGEST: usize = 256 * 1024;

/// Decides on lengths and stalls; the same for the same seed.
struct Dice(u64);

impl Dice {
    /// Less than this.
    fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX generator; its upper half is the better one.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    /// From one octet to [`LONGEST`], of each magnitude as often as of any other.
    fn length(&mut self) -> usize {
        let magnitude = self.below(19);
        1 + self.below(1 << magnitude)
    }

    /// Now and then a while of nothing.
    fn stall(&mut self) {
        if self.below(64) == 0 {
            thread::sleep(Duration::from_micros(self.below(3000) as u64));
        }
    }
}

/// Writes so many octets in pieces of any length, then the end; what they were.
fn write(mut to: TcpStream, octets: u64, mut dice: Dice) -> io::Result<Vec<u8>> {
    let source = noise(dice.0, 4 * LONGEST);
    let mut digest = Digest::new();
    let mut left = octets;
    while left > 0 {
        let length = dice.length().min(usize::try_from(left).unwrap_or(LONGEST));
        let start = dice.below(3 * LONGEST);
        let piece = &source[start..start + length];
        digest.add(piece);
        to.write_all(piece)?;
        left -= length as u64;
        dice.stall();
    }
    to.shutdown(Shutdown::Write)?;
    Ok(digest.finish())
}

/// Reads to the end, in pieces of any length; what came.
fn read(mut from: &TcpStream, mut dice: Dice) -> io::Result<(u64, Vec<u8>)> {
    let mut buffer = vec![0; LONGEST];
    let (mut octets, mut digest) = (0, Digest::new());
    loop {
        let length = dice.length();
        let read = from.read(&mut buffer[..length])?;
        if read == 0 {
            return Ok((octets, digest.finish()));
        }
        digest.add(&buffer[..read]);
        octets += read as u64;
        dice.stall();
    }
}

/// What one side of a connection has sent and what has come.
#[derive(Debug)]
struct Talk {
    number: u64,
    sent: Vec<u8>,
    came: (u64, Vec<u8>),
}

/// Writes and reads at the same time.
fn talk(stream: &TcpStream, number: u64, octets: u64, seed: u64) -> io::Result<Talk> {
    let to = stream.try_clone()?;
    let writing = thread::spawn(move || write(to, octets, Dice(seed)));
    let came = read(stream, Dice(!seed))?;
    let sent = writing.join().expect("writing does not panic")?;
    Ok(Talk { number, sent, came })
}

/// An endpoint that is told the number of each connection, talks, and tells the test.
fn talkative(octets: u64, tell: SyncSender<Talk>) -> App {
    endpoint(move |mut stream| {
        let mut number = [0; 8];
        stream.read_exact(&mut number)?;
        let number = u64::from_be_bytes(number);
        let talk = talk(&stream, number, octets, 2 * number + 1)?;
        tell.send(talk).map_err(io::Error::other)
    })
}

#[test]
fn what_goes_in_comes_out_in_both_directions_at_once() {
    for by in WAYS {
        // Of two ways over links one is as good as the other for an amount.
        let octets =
            if by == By::Address { amount(4 << 20, 256 << 20) } else { amount(32 << 20, 4 << 30) };
        all_comes_out(by, octets / CONNECTIONS);
    }
}

fn all_comes_out(by: By, octets: u64) {
    let (tell, told) = sync_channel(8);
    let app = talkative(octets, tell);
    let path = Path::new(by, &app);
    let at = path.at;
    let began = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            thread::spawn(move || {
                let mut stream = open(at, NAME)?;
                stream.write_all(&number.to_be_bytes())?;
                talk(&stream, number, octets, 2 * number)
            })
        })
        .collect();
    let near: Vec<_> = clients.into_iter().map(|client| client.join().unwrap().unwrap()).collect();
    for _ in 0..CONNECTIONS {
        let far = told.recv_timeout(PATIENCE).expect("the endpoint has heard all of it");
        let near = near.iter().find(|near| near.number == far.number).unwrap();
        assert_eq!((far.came.0, near.came.0), (octets, octets), "connection {}", far.number);
        assert!(far.came.1 == near.sent, "up, connection {}", far.number);
        assert!(near.came.1 == far.sent, "down, connection {}", far.number);
    }
    println!("by {by:?}: {} MiB each way in {:?}", (octets * CONNECTIONS) >> 20, began.elapsed());
}

/// Octets that flow after the other direction has ended.
const BEHIND_THE_END: u64 = 100 << 20;

#[test]
fn a_direction_goes_on_after_the_other_has_ended() {
    WAYS.into_iter().for_each(goes_on);
}

fn goes_on(by: By) {
    let octets = if by == By::Route { BEHIND_THE_END } else { BEHIND_THE_END / 10 };
    let (tell, told) = sync_channel(1);
    let sends = endpoint({
        let tell = tell.clone();
        move |mut stream| {
            assert_eq!(stream.read(&mut [0])?, 0, "the client's end");
            let sent = write(stream, octets, Dice(1))?;
            tell.send((octets, sent)).map_err(io::Error::other)
        }
    });
    let hears = endpoint(move |stream| {
        stream.shutdown(Shutdown::Write)?;
        tell.send(read(&stream, Dice(2))?).map_err(io::Error::other)
    });
    let (sends, hears) = (Path::new(by, &sends), Path::new(by, &hears));

    let stream = sends.open().unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let came = read(&stream, Dice(3)).unwrap();
    assert!(came == told.recv_timeout(PATIENCE).unwrap(), "down by {by:?}: {} octets came", came.0);

    let mut stream = hears.open().unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the endpoint's end");
    let sent = write(stream, octets, Dice(4)).unwrap();
    let came = told.recv_timeout(PATIENCE).unwrap();
    assert!(came == (octets, sent), "up by {by:?}: {} octets came", came.0);
}
