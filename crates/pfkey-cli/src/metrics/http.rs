//! As much of HTTP/1.1 as a scraper needs (RFC 9112): one GET or HEAD a connection.

/// Bytes of a request, at most.
pub const MOST_REQUEST: usize = 8 * 1024;

/// What is answered with.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// To who does not ask for it: the text is good as that, too.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Whether a request's head has been received whole.
pub fn is_whole(request: &[u8]) -> bool {
    request.windows(4).any(|four| four == b"\r\n\r\n") || request.windows(2).any(|two| two == b"\n\n")
}

/// The answer to a request. `metrics` makes the text, or says why there is none.
pub fn answer(request: &[u8], metrics: impl FnOnce() -> Result<String, String>) -> Vec<u8> {
    // Whatever is no ASCII is in no part that matters.
    let request = String::from_utf8_lossy(request);
    let mut lines = request.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some("HTTP/1.0" | "HTTP/1.1"), None) = (method, target, version, words.next())
    else {
        return response("400 Bad Request", PLAIN, "", "this is no request of HTTP/1.1\n", true);
    };
    let with_body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => return response("405 Method Not Allowed", PLAIN, "Allow: GET, HEAD\r\n", "GET or HEAD\n", true),
    };
    match target.split('?').next() {
        Some("/metrics") => match metrics() {
            Ok(text) => {
                let content = if accepts_open_metrics(lines) { OPEN_METRICS } else { PROMETHEUS };
                response("200 OK", content, "", &text, with_body)
            }
            Err(why) => response("503 Service Unavailable", PLAIN, "", &format!("{why}\n"), with_body),
        },
        Some("/") => response("200 OK", PLAIN, "", "/metrics\n", with_body),
        _ => response("404 Not Found", PLAIN, "", "/metrics\n", with_body),
    }
}

/// The answer to a request that is too long.
pub fn too_long() -> Vec<u8> {
    response("431 Request Header Fields Too Large", PLAIN, "", "the request is too long\n", true)
}

fn accepts_open_metrics<'a>(mut headers: impl Iterator<Item = &'a str>) -> bool {
    headers.any(|line| {
        let is_accept = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case("accept");
        let accepted = line.split_once(':').filter(is_accept).map(|(_, value)| value.to_ascii_lowercase());
        accepted.is_some_and(|value| value.contains("application/openmetrics-text"))
    })
}

fn response(status: &str, content: &str, more: &str, body: &str, with_body: bool) -> Vec<u8> {
    let len = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {len}\r\nX-Content-Type-Options: nosniff\r\n{more}\
         Connection: close\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    if with_body {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(request: &str) -> String {
        String::from_utf8(answer(request.as_bytes(), || Ok("x 1\n# EOF\n".to_owned()))).unwrap()
    }

    #[test]
    fn requests_and_answers() {
        for (request, status) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
            ("GET /metrics?name[]=up HTTP/1.0\r\n\r\n", "200 OK"),
            ("GET / HTTP/1.1\r\n\r\n", "200 OK"),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("GET /metrics HTTP/2\r\n\r\n", "400 Bad Request"),
            ("GET  /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
            ("\r\n\r\n", "400 Bad Request"),
        ] {
            let answer = answered(request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{answer}");
            assert!(head.contains("Connection: close"), "{answer}");
        }
    }

    #[test]
    fn who_asks_for_open_metrics_gets_it() {
        let accept = "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0,*/*\r\n\r\n";
        assert!(answered(accept).contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0;"));
        assert!(answered("GET /metrics HTTP/1.1\r\n\r\n").contains("\r\nContent-Type: text/plain; version=0.0.4;"));
    }

    #[test]
    fn head_has_no_body() {
        let answer = answered("HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(answer.contains("Content-Length: 10\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn a_failure_is_told() {
        let answer = answer(b"GET /metrics HTTP/1.1\r\n\r\n", || Err("dump: no answer".to_owned()));
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\ndump: no answer\n"), "{answer}");
    }

    #[test]
    fn a_head_is_whole_at_its_empty_line() {
        assert!(is_whole(b"GET / HTTP/1.1\r\nA: b\r\n\r\n") && is_whole(b"GET / HTTP/1.1\n\n"));
        assert!(!is_whole(b"GET / HTTP/1.1\r\nA: b\r\n") && !is_whole(b""));
    }
}
