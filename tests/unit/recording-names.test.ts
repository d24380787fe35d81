import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isoTime, parseSegmentName, sessionName } from '../../src/core/recording.ts';

/** Runs `body` with the process in another time zone; Node reads TZ again whenever it is assigned. */
function inZone(zone: string, body: () => void): void {
  const before = process.env.TZ;
  process.env.TZ = zone;
  try {
    body();
  } finally {
    if (before === undefined) delete process.env.TZ;
    else process.env.TZ = before;
  }
}

describe('parseSegmentName', () => {
  it('takes the BrowserTool example apart', () => {
    assert.deepEqual(parseSegmentName('vnc_global_20251116_103022_seg000.mkv'), {
      filename: 'vnc_global_20251116_103022_seg000.mkv',
      sessionId: 'vnc_global_20251116_103022',
      sandboxId: 'global',
      segment: 0,
    });
  });

  it('reads the segment number as a decimal of three to six digits', () => {
    assert.equal(parseSegmentName('vnc_a_20251116_103022_seg010.mkv')?.segment, 10);
    assert.equal(parseSegmentName('vnc_a_20251116_103022_seg1000.mkv')?.segment, 1000);
    assert.equal(parseSegmentName('vnc_a_20251116_103022_seg999999.mkv')?.segment, 999_999);
  });

  it('finds the sandbox id even when the id looks like a session', () => {
    const nested = parseSegmentName('vnc_a_20250101_000000_seg000_20251116_103022_seg001.mkv');
    assert.equal(nested?.sandboxId, 'a_20250101_000000_seg000');
    assert.equal(nested?.segment, 1);
  });

  it('bounds the sandbox id at 64 characters', () => {
    const name = (length: number) => `vnc_${'x'.repeat(length)}_20251116_103022_seg000.mkv`;
    assert.equal(parseSegmentName(name(64))?.sandboxId.length, 64);
    assert.equal(parseSegmentName(name(65)), undefined);
    assert.equal(parseSegmentName(name(300)), undefined);
  });

  const refused: Record<string, string> = {
    nothing: '',
    blanks: '   ',
    'the folder above': '..',
    'a path': '../../etc/passwd',
    'a path in front': '../vnc_a_20251116_103022_seg000.mkv',
    'a path in the id': 'vnc_a/../b_20251116_103022_seg000.mkv',
    'a backslash': 'vnc_a\\b_20251116_103022_seg000.mkv',
    'another extension': 'vnc_a_20251116_103022_seg000.mp4',
    'a second extension': 'vnc_a_20251116_103022_seg000.mkv.part',
    'upper case': 'VNC_a_20251116_103022_seg000.MKV',
    'a NUL at the end': 'vnc_a_20251116_103022_seg000.mkv\0',
    'a NUL before the extension': 'vnc_a_20251116_103022_seg000\0.mkv',
    'a line end': 'vnc_a_20251116_103022_seg000.mkv\n',
    'a line in front': 'x\nvnc_a_20251116_103022_seg000.mkv',
    'a blank in front': ' vnc_a_20251116_103022_seg000.mkv',
    'no id': 'vnc__20251116_103022_seg000.mkv',
    'an id that starts with a dash': 'vnc_-a_20251116_103022_seg000.mkv',
    'an id with a dot': 'vnc_a.b_20251116_103022_seg000.mkv',
    'an id with a letter beyond ASCII': 'vnc_ä_20251116_103022_seg000.mkv',
    'digits beyond ASCII': 'vnc_a_20251116_103022_seg٠٠٠.mkv',
    'two digits of segment': 'vnc_a_20251116_103022_seg00.mkv',
    'seven digits of segment': 'vnc_a_20251116_103022_seg0000000.mkv',
    'no time': 'vnc_a_20251116_seg000.mkv',
  };
  for (const [what, name] of Object.entries(refused)) {
    it(`refuses ${what}`, () => assert.equal(parseSegmentName(name), undefined));
  }
});

describe('sessionName', () => {
  it('is local time with leading zeros', () => {
    assert.equal(sessionName('global', new Date(2025, 0, 2, 3, 4, 5)), 'vnc_global_20250102_030405');
    inZone('Asia/Shanghai', () => {
      assert.equal(sessionName('b', new Date('2025-11-16T02:30:22Z')), 'vnc_b_20251116_103022');
    });
  });

  it('makes names that parse back', () => {
    const session = sessionName('my_box-1', new Date());
    assert.equal(parseSegmentName(`${session}_seg007.mkv`)?.sessionId, session);
    assert.equal(parseSegmentName(`${session}_seg007.mkv`)?.sandboxId, 'my_box-1');
  });
});

describe('isoTime', () => {
  const instant = Date.parse('2025-11-16T02:30:22.123Z');
  const zones: Record<string, string> = {
    'Asia/Shanghai': '2025-11-16T10:30:22.123+08:00',
    UTC: '2025-11-16T02:30:22.123+00:00',
    'America/St_Johns': '2025-11-15T23:00:22.123-03:30',
    'Asia/Kathmandu': '2025-11-16T08:15:22.123+05:45',
  };
  for (const [zone, expected] of Object.entries(zones)) {
    it(`carries the offset of ${zone}`, () => {
      inZone(zone, () => assert.equal(isoTime(instant), expected));
    });
  }

  it('names the same instant, to the millisecond', () => {
    inZone('America/St_Johns', () => assert.equal(Date.parse(isoTime(instant)), instant));
  });
});
