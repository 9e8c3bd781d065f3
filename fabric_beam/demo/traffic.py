"""The requests of the simulated fleet: who asks for what, how it is answered, and the lines that say so."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fabric_beam.demo.day import SCANNER, SERVICES, START, Day

_CLIENTS = 40_000
_TARGETS = 20_000
_MINUTE = 60_000_000
_NETWORKS = (5, 24, 31, 46, 62, 73, 81, 86, 91, 98, 109, 121, 134, 151, 176, 185, 188, 201, 213)

#: What each service is asked for: method, target ({} is an identifier), median bytes of the answer, how common.
_ENDPOINTS = {
    "web": (
        ("GET", "/", 9_000, 12),
        ("GET", "/products/{}", 14_000, 30),
        ("GET", "/static/img/{}.webp", 22_000, 24),
        ("GET", "/static/app.{}.js", 31_000, 10),
        ("GET", "/search?q=item+{}", 11_000, 12),
        ("GET", "/blog/{}/", 17_000, 7),
        ("HEAD", "/products/{}", 0, 2),
        ("POST", "/cart/items/{}", 700, 3),
    ),
    "api": (
        ("GET", "/api/v1/products/{}", 1_900, 34),
        ("GET", "/api/v1/users/{}/orders", 2_600, 18),
        ("GET", "/api/v2/stock?sku={}", 450, 22),
        ("POST", "/api/v1/events?session={}", 60, 16),
        ("PUT", "/api/v1/carts/{}", 380, 8),
        ("DELETE", "/api/v1/carts/{}/items", 40, 2),
    ),
    "checkout": (
        ("GET", "/checkout/{}", 5_200, 40),
        ("POST", "/checkout/{}/address", 900, 20),
        ("POST", "/checkout/{}/payment", 1_100, 16),
        ("GET", "/checkout/{}/status", 300, 24),
    ),
}
_PROBES = (
    "/.env",
    "/.git/config",
    "/admin/login.php",
    "/backup.zip",
    "/cgi-bin/test.cgi",
    "/phpmyadmin/",
    "/server-status",
    "/wp-login.php",
)

#: How requests that do not fail are answered, in thousandths.
_READ = {200: 890, 304: 52, 301: 12, 302: 10, 206: 6, 404: 20, 403: 5, 400: 3, 429: 2}
_WRITE = {200: 560, 201: 255, 204: 90, 302: 50, 400: 18, 401: 12, 409: 8, 422: 7}
_ANSWERS = np.array([np.repeat(list(table), list(table.values())) for table in (_READ, _WRITE)])
_FAILURES = np.repeat([500, 502, 503, 504], [5, 1, 3, 1])
_NO_BODY = (204, 304)

_CHROME = "Mozilla/5.0 ({}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
#: User agents, with how common each is among the clients of web, api and checkout.
_AGENTS = {
    _CHROME.format("Windows NT 10.0; Win64; x64", 143): (10, 1, 12),
    _CHROME.format("Macintosh; Intel Mac OS X 10_15_7", 143): (5, 1, 5),
    _CHROME.format("X11; Linux x86_64", 142): (2, 1, 1),
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:146.0) Gecko/20100101 Firefox/146.0": (5, 1, 5),
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0": (2, 1, 1),
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": (8, 0, 0),
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)": (5, 0, 0),
    "Shop/7.4.1 (iPhone; iOS 19.1; Scale/3.00)": (25, 34, 36),
    "Shop/7.4.0 (Linux; Android 16; Pixel 9)": (25, 30, 34),
    "okhttp/5.3.0": (1, 12, 0),
    "python-requests/2.32.5": (3, 8, 0),
    "Go-http-client/2.0": (2, 7, 0),
    "curl/8.17.0": (2, 2, 0),
    "-": (2, 1, 0),
}
_REFERERS = (
    "https://www.example.com/",
    "https://www.google.com/",
    "https://www.example.com/products/1017",
    "https://www.example.com/search?q=item",
    "https://www.bing.com/",
    "https://duckduckgo.com/",
)
_REFERRED = {"web": 0.25, "api": 0.02, "checkout": 0.25}

#: What an application says, by the status's first digit: severity text and number (OpenTelemetry), and two messages.
_SEVERITIES = {
    2: ("INFO", 9, ("request completed", "request handled")),
    3: ("DEBUG", 5, ("not modified", "redirected")),
    4: ("WARN", 13, ("request refused", "validation failed")),
    5: ("ERROR", 17, ("upstream timed out", "connection pool exhausted")),
}

#: The fields of the combined log format: with a space between them they are the line.
COMBINED = ("client", "time", "request", "status", "size", "referer", "agent")


class Traffic:
    """Everything that the requests draw from; clients and targets follow Zipf-Mandelbrot laws."""

    def __init__(self, day: Day, rng: np.random.Generator) -> None:
        """Build the pools.

        Args:
            day: the day's rates and incidents.
            rng: the source of chance, used for the requests as well.
        """
        self._day, self._rng = day, rng
        seconds = pl.datetime_range(START, START.replace(hour=23, minute=59, second=59), "1s", eager=True)
        self._time = seconds.dt.strftime("[%d/%b/%Y:%H:%M:%S +0000]")
        self._client = pl.Series([*_addresses(rng), SCANNER])
        user = pl.Series(np.where(rng.random(_CLIENTS + 1) < 0.02, "user", "-"))
        self._caller = self._client + " - " + user
        self._referer = pl.Series([f'"{referer}"' for referer in ("-", *_REFERERS)])
        self._agent = pl.Series([f'"{agent}"' for agent in _AGENTS])
        weights = np.array(list(_AGENTS.values())).T
        self._agent_of = [rng.choice(len(_AGENTS), _CLIENTS + 1, p=weight / weight.sum()) for weight in weights]
        self._pools = [_targets(service, rng) for service in SERVICES]

    def requests(self, service: int, first: int, counts: NDArray[np.int64]) -> pl.DataFrame:
        """Draw the requests of some minutes.

        Args:
            service: the service's place in `SERVICES`.
            first: the first minute.
            counts: the number of requests in it and in each minute after it.

        Returns:
            As many rows as `counts` sums to, in order of time: the columns of `COMBINED` as they stand in the line,
            `host` (from 0), and for `records` the columns `microsecond` (of the day), `address`, `method`, `target`
            and `duration` (seconds).
        """
        rng, day, pool = self._rng, self._day, self._pools[service]
        minute = np.repeat(np.arange(first, first + len(counts)), counts)
        n = len(minute)
        microsecond = np.sort(minute * _MINUTE + rng.integers(0, _MINUTE, n))
        client, wanted = _zipf(rng, _CLIENTS, n), _zipf(rng, _TARGETS, n)
        scan = rng.random(n) < day.scanned[service][minute]
        client[scan] = _CLIENTS
        wanted[scan] = _TARGETS + rng.integers(0, len(_PROBES), int(scan.sum()))

        status = _ANSWERS[pool["write"].to_numpy()[wanted].astype(np.intp), rng.integers(0, _ANSWERS.shape[1], n)]
        failed = rng.random(n) < day.failed[service][minute]
        status[failed] = _FAILURES[rng.integers(0, len(_FAILURES), int(failed.sum()))]
        status[scan] = 404
        weight = day.weight[service][minute]
        median = np.where(status < 300, pool["size"].to_numpy()[wanted], 320)
        size = (median * weight * rng.lognormal(0, 0.7, n)).astype(np.int64)
        size[np.isin(status, _NO_BODY)] = 0
        hosts, referral = list(SERVICES.values())[service][0], list(_REFERRED.values())[service]
        referer = np.where(rng.random(n) < referral, 1 + _zipf(rng, len(_REFERERS), n), 0)

        return pl.DataFrame(
            {
                "client": self._caller.gather(client),
                "time": self._time.gather(microsecond // 1_000_000),
                "request": pool["request"].gather(wanted),
                "status": status,
                # Apache writes an empty body as "-".
                "size": pl.Series(size).cast(pl.String).replace("0", "-"),
                "referer": self._referer.gather(referer),
                "agent": self._agent.gather(self._agent_of[service][client]),
                "host": rng.integers(0, hosts, n),
                "microsecond": microsecond,
                "address": self._client.gather(client),
                "method": pool["method"].gather(wanted),
                "target": pool["target"].gather(wanted),
                "duration": 0.02 * weight * np.where(failed, 10, 1) * rng.lognormal(0, 0.7, n),
            }
        )

    def records(self, service: str, requests: pl.DataFrame) -> pl.DataFrame:
        """Write what a service's application logs of some requests.

        Args:
            service: its name.
            requests: rows that `requests` returned.

        Returns:
            A row each and a column a field, `host` apart named by OpenTelemetry's conventions.
        """
        kind = pl.col("status") // 100
        said = kind * 2 + pl.Series(self._rng.integers(0, 2, len(requests)))
        stamp = START.replace(tzinfo=None) + pl.duration(microseconds="microsecond")
        return requests.select(
            "host",
            stamp.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").alias("timestamp"),
            kind.replace_strict({k: text for k, (text, _, _) in _SEVERITIES.items()}).alias("severity_text"),
            kind.replace_strict({k: number for k, (_, number, _) in _SEVERITIES.items()}).alias("severity_number"),
            pl.format(
                "{}: {} {} took {} ms",
                said.replace_strict(
                    {2 * k + i: text for k, row in _SEVERITIES.items() for i, text in enumerate(row[2])}
                ),
                "method",
                "target",
                (pl.col("duration") * 1000).round(1),
            ).alias("body"),
            pl.lit(service).alias("service.name"),
            pl.format("{}-{}", pl.lit(service), pl.col("host") + 1).alias("host.name"),
            pl.col("address").alias("client.address"),
            pl.col("method").alias("http.request.method"),
            pl.col("target").str.extract(r"^([^?]*)").alias("url.path"),
            pl.col("target").str.extract(r"\?(.*)").alias("url.query"),
            pl.col("status").alias("http.response.status_code"),
            pl.col("duration").round(6).alias("http.server.request.duration"),
        )


def _zipf(rng: np.random.Generator, ranks: int, n: int, flat: int = 12) -> NDArray[np.int64]:
    """Draw ranks from 0: rank r about as often as 1 / (r + flat) (Mandelbrot, 1953), by inverting the distribution."""
    return (flat * ((ranks + flat) / flat) ** rng.random(n) - flat).astype(np.int64)


def _addresses(rng: np.random.Generator) -> list[str]:
    """Invent the clients' addresses, most active first: one in twelve is IPv6, of the range kept for documentation."""
    parts = rng.integers(0, 256, (_CLIENTS, 4)).tolist()
    return [
        f"2001:db8:{a:x}:{b:x}::{c * d:x}" if a < 21 else f"{_NETWORKS[a % len(_NETWORKS)]}.{b}.{c}.{d}"
        for a, b, c, d in parts
    ]


def _targets(service: str, rng: np.random.Generator) -> pl.DataFrame:
    """Invent what a service is asked for, most wanted first and the scanner's probes last."""
    endpoints = _ENDPOINTS[service]
    common = np.array([share for *_, share in endpoints])
    chosen = rng.choice(len(endpoints), _TARGETS, p=common / common.sum()).tolist()
    numbers = rng.integers(1_000, 100_000, _TARGETS).tolist()
    known = [
        (endpoints[i][0], endpoints[i][1].format(number), endpoints[i][2])
        for i, number in zip(chosen, numbers, strict=True)
    ]
    pool = pl.DataFrame(
        [*known, *(("GET", target, 0) for target in _PROBES)], ["method", "target", "size"], orient="row"
    )
    version = pl.when(pl.int_range(pl.len()) % 5 == 4).then(pl.lit("2.0")).otherwise(pl.lit("1.1"))
    return pool.with_columns(
        pl.format('"{} {} HTTP/{}"', "method", "target", version).alias("request"),
        (~pl.col("method").is_in(["GET", "HEAD"])).alias("write"),
    )
