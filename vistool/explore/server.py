"""The web server of a page: on this machine only, for whoever knows its address."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vistool.environment import __version__, shareable
from vistool.errors import InputError, cause_of, in_python
from vistool.explore.photos import (
    MOST_BYTES,
    MOST_PIXELS,
    NotAnImage,
    Photo,
    TooLarge,
    UnknownPhoto,
    base_name,
    thumbnail_of,
)
from vistool.explore.session import FORMATS, Session
from vistool.explore.view import View
from vistool.explore.worker import Stopped, Superseded, Worker
from vistool.visualization.style import lookup_table

log = logging.getLogger('vistool')
logging.getLogger('uvicorn').addHandler(logging.NullHandler())  # else Python prints what it says at the end
logging.getLogger('uvicorn').propagate = False

HOST = '127.0.0.1'
COLORMAPS = ('jet', 'inferno', 'viridis', 'RdBu_r', 'magma', 'turbo', 'gray')
LOOKS = {
    'attention': {'colormap': 'inferno', 'alpha': 0.6, 'interpolation': 'nearest'},
    'similarity': {'colormap': 'RdBu_r', 'alpha': 0.6, 'interpolation': 'nearest'},
    'pca': {'colormap': None, 'alpha': 1.0, 'interpolation': 'nearest'},
    'cam': {'colormap': 'jet', 'alpha': 0.5, 'interpolation': 'bilinear'},
    'features': {'colormap': 'viridis', 'alpha': 0.75, 'interpolation': 'nearest'},
    'patches': {'colormap': None, 'alpha': 0.0, 'interpolation': 'nearest'},
}
_MEDIA = {'.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.svg': 'image/svg+xml'}
_FIGURES = {'png': 'image/png', 'pdf': 'application/pdf', 'npz': 'application/octet-stream', 'zip': 'application/zip'}
_DRAINED = 512 << 20
"""Bytes of a body that is too large that are read and dropped, so that the answer reaches whoever sends it."""
_TAB = re.compile(r'[\w-]{1,64}')
_HEADERS = {
    'content-security-policy': (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'permissions-policy': 'camera=(), microphone=(), geolocation=()',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
}


def static_files(folders: Sequence[Path]) -> dict[str, tuple[bytes, str]]:
    """The files of a page: name → bytes and media type. Nothing else of these folders is ever read."""
    found: dict[str, tuple[bytes, str]] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix in _MEDIA and path.is_file():
                found.setdefault(path.name, (path.read_bytes(), _MEDIA[path.suffix]))
    return found


@dataclass(eq=False)
class Guard:
    """Passes on requests with the right token, Host and Origin; every answer gets the headers of a page on its own.

    Attributes:
        app: What answers.
        token: The first part of every address.
        port: The server's.
    """

    app: ASGIApp
    token: str
    port: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope['type'] != 'http':
            if scope['type'] == 'websocket':
                await send({'type': 'websocket.close', 'code': 1008})
            return

        async def guarded(message: Message) -> None:
            if message['type'] == 'http.response.start':
                names = {name.lower() for name, _ in message['headers']}
                more = {**_HEADERS, 'cache-control': 'no-store'}
                message['headers'] = [
                    *message['headers'],
                    *((n.encode(), v.encode()) for n, v in more.items() if n.encode() not in names),
                ]
            await send(message)

        reason, rest = self._refusal(scope)
        if reason:
            await _error(403, reason)(scope, receive, guarded)
            return
        if not scope['path'].endswith('/') and rest == '/':  # the page's files are named relative to its folder
            await RedirectResponse(f'/{self.token}/')(scope, receive, guarded)
            return
        await self.app({**scope, 'path': rest, 'raw_path': quote(rest).encode()}, receive, guarded)

    def _refusal(self, scope: Scope) -> tuple[str, str]:
        """Why a request is refused, or ``''``; and the rest of its path after the token."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope['headers']:
            headers.setdefault(name, []).append(value)
        known = {f'{host}:{self.port}'.encode() for host in (HOST, 'localhost')}
        host = headers.get(b'host', [])
        if len(host) != 1 or host[0].lower() not in known:
            return 'this address is not served', ''
        origins = headers.get(b'origin', [])
        if origins and origins != [b'http://' + host[0]]:
            return 'requests of other pages are not answered', ''
        _, _, path = scope['path'].partition('/')
        token, _, rest = path.partition('/')
        # A link to the page may be clicked anywhere, such as in a notebook's terminal; the token says who may.
        followed = not rest and headers.get(b'sec-fetch-mode') == [b'navigate']
        if headers.get(b'sec-fetch-site', [b'none'])[0] not in (b'same-origin', b'none') and not followed:
            return 'requests of other pages are not answered', ''
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return 'the address lacks the right token; take the one that the command printed', ''
        return '', f'/{rest}'


@dataclass(eq=False)
class Server:
    """A page's server.

    Attributes:
        session: What it answers with.
        worker: The thread of the models.
        files: The page's files.
        command: The command line that started it.
        token: The first part of every address.
    """

    session: Session
    worker: Worker
    files: Mapping[str, tuple[bytes, str]]
    command: str = ''
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def app(self, port: int) -> Guard:
        """The ASGI application for a port."""
        routes = [
            Route('/', _answering(self.page)),
            Route('/page/colormaps.bin', _answering(self.colormaps)),
            Route('/page/{name}', _answering(self.file)),
            Route('/state', _answering(self.state)),
            Route('/busy', _answering(self.busy)),
            Route('/photos', _answering(self.upload), methods=['POST']),
            Route('/photos/{photo}', _answering(self.forget), methods=['DELETE']),
            Route('/photos/{photo}/picture', _answering(self.picture)),
            Route('/photos/{photo}/thumbnail', _answering(self.thumbnail)),
            Route('/photos/{photo}/describe', _answering(self.describe)),
            Route('/map', _answering(self.map)),
            Route('/figure', _answering(self.figure)),
        ]
        handlers: dict[Any, Any] = {404: _not_found, 405: _not_allowed}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), self.token, port)

    async def page(self, request: Request) -> Response:
        """The page itself."""
        return self._static('page.html')

    async def file(self, request: Request) -> Response:
        """One of its files."""
        return self._static(request.path_params['name'])

    def _static(self, name: str) -> Response:
        if name not in self.files:
            return _error(404, 'no such file')
        data, media = self.files[name]
        return Response(data, media_type=media)

    async def colormaps(self, request: Request) -> Response:
        """The color maps of figures, uint8 ``(n, 256, 3)``."""
        tables = np.stack([lookup_table(name) for name in COLORMAPS])
        headers = {'cache-control': 'private, max-age=3600'}
        return Response(tables.tobytes(), media_type='application/octet-stream', headers=headers)

    async def state(self, request: Request) -> Response:
        """Models, photos, looks and limits; of uploads those that a page names after it was loaded again."""
        uploads = request.query_params.get('uploads', '').split(',')
        return JSONResponse(
            {
                'version': __version__,
                'command': shareable(self.command),
                'models': self.session.told(),
                'photos': self.session.photos.listed(uploads),
                'colormaps': list(COLORMAPS),
                'looks': LOOKS,
                'formats': list(FORMATS),
                'limits': {'bytes': MOST_BYTES, 'pixels': MOST_PIXELS},
                'busy': self.worker.busy(),
            }
        )

    async def busy(self, request: Request) -> Response:
        """What the models do right now."""
        return JSONResponse(self.worker.busy())

    async def upload(self, request: Request) -> Response:
        """Takes a photo."""
        name = base_name(request.query_params.get('name', 'photo.png'))
        key, path = self.session.photos.new_file(name)
        try:
            await _save(request, path)
            work = functools.partial(self.session.upload, key, path, name)
            told = await self._work(request, None, work, {'view': 'upload', 'photo': key, 'model': 0})
        except BaseException:
            _remove_upload(path)
            with contextlib.suppress(Stopped):  # after the work that may still read the file of a client that left
                self.worker.submit(None, functools.partial(self.session.drop, key), {'view': 'forget', 'photo': key})
            raise
        return JSONResponse(told, 201)

    async def forget(self, request: Request) -> Response:
        """Removes an upload."""
        work = functools.partial(self.session.forget, request.path_params['photo'])
        await self._work(request, None, work, {'view': 'forget', 'photo': request.path_params['photo'], 'model': 0})
        return Response(status_code=204)

    async def picture(self, request: Request) -> Response:
        """The picture of a photo."""
        photo, model = self._named(request)
        work = functools.partial(self.session.picture, photo, model)
        data, media = await self._work(request, None, work, {'view': 'picture', 'photo': photo.id, 'model': model})
        return Response(data, media_type=media)

    async def thumbnail(self, request: Request) -> Response:
        """A small picture of a photo, made beside the models' thread where its file can be read without them."""
        small = await asyncio.to_thread(thumbnail_of, self._named(request)[0])
        return await self.picture(request) if small is None else Response(small, media_type='image/jpeg')

    async def describe(self, request: Request) -> Response:
        """What a model makes of a photo, and which views there are."""
        photo, model = self._named(request)
        work = functools.partial(self.session.describe, photo, model)
        about = {'view': 'describe', 'photo': photo.id, 'model': model}
        return JSONResponse(await self._work(request, self._key(request, 'describe', model), work, about))

    async def map(self, request: Request) -> Response:
        """The maps of a view."""
        photo, model = self._named(request)
        view = View.parse(request.query_params)
        work = functools.partial(self.session.map, photo, model, view)
        about = {'view': view.kind, 'photo': photo.id, 'model': model}
        data = await self._work(request, self._key(request, view.kind, model), work, about)
        return Response(data, media_type='application/octet-stream')

    async def figure(self, request: Request) -> Response:
        """The file that a view's command writes."""
        photo, model = self._named(request)
        view, kind = View.parse(request.query_params), request.query_params.get('format', 'zip')
        work = functools.partial(self.session.figure, photo, model, view, kind)
        name, data = await self._work(request, None, work, {'view': 'figure', 'photo': photo.id, 'model': model})
        disposition = f"attachment; filename*=UTF-8''{quote(name)}"
        return Response(data, media_type=_FIGURES[kind], headers={'content-disposition': disposition})

    def _named(self, request: Request) -> tuple[Photo, int]:
        """The photo and the model that a request names."""
        given = request.query_params.get('model', '0')
        count = len(self.session.models)
        if not re.fullmatch('[0-9]{1,3}', given) or int(given) >= count:
            raise InputError(f'no model {given[:20]!r}', accepted=f'0 to {count - 1}', parameter='model')
        photo = request.path_params.get('photo') or request.query_params.get('photo', '')
        return self.session.photos[photo], int(given)

    @staticmethod
    def _key(request: Request, view: str, model: int) -> Hashable:
        """What a newer request has in common with the one that it replaces; None: nothing is replaced."""
        tab = request.query_params.get('tab', '')
        return (tab, view, model) if _TAB.fullmatch(tab) else None

    async def _work(self, request: Request, key: Hashable, work: Callable[[], Any], about: Mapping[str, Any]) -> Any:
        """The result of model work; canceled, as far as it has not begun, when the client leaves."""
        job = self.worker.submit(key, work, about)
        result = asyncio.wrap_future(job.future)
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({result, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise ClientDisconnect
            return result.result()
        finally:
            leaving.cancel()
            if not result.done():
                self.worker.cancel(job)
                result.cancel()  # nobody is told what a running job raises later


async def _left(request: Request) -> None:
    """Returns once the client has closed the connection."""
    while (await request.receive())['type'] != 'http.disconnect':
        pass


async def _save(request: Request, path: Path) -> None:
    """Writes a body to a file.

    Raises:
        TooLarge: It has more bytes than are taken.
    """
    size = 0
    with path.open('wb') as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= MOST_BYTES:
                await asyncio.to_thread(file.write, chunk)
            elif size > _DRAINED:
                break
    if size > MOST_BYTES:
        megabytes = f'{size / (1 << 20):.0f} MB' if size <= _DRAINED else f'more than {_DRAINED >> 20} MB'
        raise TooLarge(f'{path.name} has {megabytes}', accepted=f'at most {MOST_BYTES >> 20} MB')


def _remove_upload(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):
        path.parent.rmdir()


Handler = Callable[[Request], Awaitable[Response]]


def _answering(handler: Handler) -> Handler:
    """A handler whose every exception becomes an answer of one line."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Superseded:
            return _error(409, 'superseded')
        except UnknownPhoto:
            return _error(404, 'the photo is no longer held; choose it again')
        except TooLarge as error:
            return _told(413, error)
        except NotAnImage as error:
            return _told(415, error)
        except InputError as error:
            return _told(400, error)
        except (Stopped, asyncio.CancelledError):
            return _error(503, 'the server stops')
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            log.debug('%s', cause_of(error), exc_info=True)
            log.error('%s', shareable(cause_of(error)))
            return _error(500, f'a fault of vistool: {cause_of(error)}')

    return answer


def _told(status: int, error: InputError) -> Response:
    """An error of the input: its line without the parameter, which is told beside it."""
    line = InputError(error.problem, accepted=error.accepted, hint=error.hint).line(in_python)
    return _error(status, line, error.parameter or None)


def _error(status: int, line: str, parameter: str | None = None) -> Response:
    """An error as a page reads it; paths of this machine are cut to their ends."""
    return JSONResponse({'error': ' '.join(str(shareable(line)).split()), 'parameter': parameter}, status)


async def _not_found(request: Request, error: Exception) -> Response:
    return _error(404, 'no such address')


async def _not_allowed(request: Request, error: Exception) -> Response:
    return _error(405, f'{request.method} is not answered here')


def bound(port: int) -> socket.socket:
    """A socket of this machine alone that listens.

    Args:
        port: Which; 0: any that is free.

    Raises:
        InputError: The port is taken, or not a port.
    """
    if not 0 <= port <= 65535:
        raise InputError(f'{port} is not a port', accepted='1 to 65535, or 0 for any', parameter='port')
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise InputError(
            f'port {port} cannot be used: {error.strerror or error}', hint='leave it out for one that is free',
            parameter='port',
        ) from None  # fmt: skip
    listening.listen(128)
    return listening


def serve(server: Server, listening: socket.socket, ready: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        server: What is served.
        listening: From :func:`bound`.
        ready: Called with the address once it can be opened.
    """
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        server.app(port),
        log_config=None,
        access_log=False,
        lifespan='off',
        server_header=False,
        ws='none',
        timeout_graceful_shutdown=0,
        timeout_keep_alive=30,
    )

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(f'http://{HOST}:{port}/{server.token}/')

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Ends the server; uvicorn would raise the signal once more, and SIGTERM would leave files behind."""
            self.should_exit = True

    Announced(config).run(sockets=[listening])
